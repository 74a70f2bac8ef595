import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startService, type TestService } from './support.ts'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const excerpt = gunzipSync(readFileSync(new URL('data/ubuntu-irc-excerpt.ndjson.gz', import.meta.url)))

/** Every command with curl in the README, with the answer printed below it. */
const examples = [...readme.matchAll(/```sh\n(curl [^`]*)```\n\n```json\n([^`]*)```/g)].map(([, command = '', answer = '']) => ({
  command,
  path: /127\.0\.0\.1:8787(\S+?)"/.exec(command)?.[1] ?? '',
  body: /--data-binary '\n([^']*)'/.exec(command)?.[1],
  answer: JSON.parse(answer) as { data: { computedAt?: string } },
}))

describe('the README', () => {
  let service: TestService
  beforeAll(async () => {
    // Where an answer tells when it was computed, that is when it is computed here.
    const now = examples.find(({ answer }) => answer.data.computedAt)?.answer.data.computedAt
    service = await startService(now === undefined ? {} : { now })
    const events = excerpt.toString().trim().split('\n').map((line) => JSON.parse(line) as object)
    await service.store(events)
  })
  afterAll(() => service.close())

  it('has examples', () => expect(examples.length).toBeGreaterThanOrEqual(4))

  it.each(examples)('tells the truth about $path', async ({ path, body, answer }) => {
    const reply =
      body === undefined
        ? await service.request('GET', path, {})
        : await service.request('POST', path, { body, headers: { 'Content-Type': 'application/x-ndjson' } })
    expect(reply.body).toEqual(answer)
  })
})
