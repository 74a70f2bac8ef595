/** A TCP proxy between the writers and the service that breaks connections, mostly after the request has been sent. */
import { once } from 'node:events'
import { createServer, connect, type AddressInfo, type Socket } from 'node:net'
import type { Dice } from './dice.ts'

export interface Proxy {
  readonly url: string
  /** Connections broken so far. */
  readonly cuts: number
  close(): void
}

/** Of a hundred requests, so many are cut off: on their way, once they are there, or in the middle of their answer. */
const CUTS = { request: 0.01, waiting: 0.025, answer: 0.015 }
/** How long after the last byte of a request the connection goes: anywhere in the life of an insert. */
const WAITING_MS = 60

/** Starts a proxy to a port of this machine. */
export async function startProxy(port: number, dice: Dice): Promise<Proxy> {
  let cuts = 0
  const open = new Set<Socket>()

  const server = createServer((caller) => {
    const service = connect(port, '127.0.0.1')
    const both = [caller, service]
    const end = () => {
      for (const socket of both) {
        socket.destroy()
        open.delete(socket)
      }
    }
    const cut = () => {
      if (caller.destroyed) return
      cuts++
      end()
    }
    for (const socket of both) {
      open.add(socket)
      socket.setNoDelay(true).on('error', end).on('close', end)
    }
    caller.on('data', (bytes: Buffer) => {
      if (dice.chance(CUTS.request)) {
        service.write(bytes.subarray(0, bytes.length >> 1), cut)
        return
      }
      service.write(bytes)
      if (dice.chance(CUTS.waiting)) setTimeout(cut, dice.next() * WAITING_MS)
    })
    service.on('data', (bytes: Buffer) => {
      if (dice.chance(CUTS.answer)) caller.write(bytes.subarray(0, bytes.length >> 1), cut)
      else caller.write(bytes)
    })
  })

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get cuts() {
      return cuts
    },
    close() {
      server.close()
      for (const socket of open) socket.destroy()
    },
  }
}
