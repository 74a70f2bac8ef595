/** Answers that are sent while they are made: files, and snapshots of many rows. */
import type { Context } from 'hono'
import type { Export } from '../analytics/endpoint.ts'
import type { Sent } from '../observe/request-context.ts'
import type { Env } from './environment.ts'

/**
 * The response of an export, at the pace at which its caller reads.
 * @param open runs the query; where it throws, the caller gets an error as from any other request
 * @param close gives the export's slot back; called exactly when the last byte is sent or the export has failed
 */
export async function exportResponse(c: Context<Env>, open: () => Promise<Export>, close: () => void): Promise<Response> {
  try {
    const { headers, chunks } = await open()
    for (const [name, value] of Object.entries(headers)) c.header(name, value)
    c.header('Vary', 'Authorization, Accept')
    if (c.req.method !== 'HEAD') {
      const { body, sent } = bodyOf(chunks, c.req.raw.signal, (error) => breakOff(c, error))
      c.get('observed').sending = sent.finally(close)
      return c.body(body)
    }
    await chunks.return?.()
  } catch (error) {
    close()
    throw error
  }
  close()
  return c.body(null)
}

/**
 * A body that is made as fast as the caller takes it.
 * @param onError called where `chunks` throws; returns whether it has ended the connection
 * @returns `sent` resolves when the body has ended, whatever became of it
 */
function bodyOf(chunks: AsyncIterator<Uint8Array>, callerSignal: AbortSignal, onError: (error: unknown) => boolean) {
  let left = false
  let bytes = 0
  let done!: (outcome: Sent['outcome']) => void
  const sent = new Promise<Sent>((resolve) => (done = (outcome) => resolve({ outcome, bytes })))
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const next = await chunks.next()
        // It was being made when the caller left; the stream takes nothing more.
        if (left) return
        if (!next.done) {
          bytes += next.value.byteLength
          return controller.enqueue(next.value as Uint8Array<ArrayBuffer>)
        }
        controller.close()
        done('ok')
      } catch (error) {
        const outcome = callerSignal.aborted ? 'cancelled' : 'failed'
        if (!onError(error)) controller.error(error)
        done(outcome)
      }
    },
    async cancel() {
      left = true
      done('cancelled')
      await chunks.return?.()
    },
  })
  return { body, sent }
}

/**
 * The status line is out already: all that is left to say is that this was not the end, by closing the connection.
 * @returns whether there was one; an error of the stream would then be printed as it is, past the log
 */
function breakOff(c: Context<Env>, error: unknown): boolean {
  const { outgoing } = (c.env as Env['Bindings'] | undefined) ?? {}
  if (!c.req.raw.signal.aborted) c.get('observed').failure = { level: 'error', cause: error }
  outgoing?.destroy()
  return outgoing !== undefined
}
