import { readFileSync } from 'node:fs'
import { runInNewContext } from 'node:vm'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AnalyticsError, createAnalyticsClient, type AnalyticsClientOptions } from '../src/client.ts'
import { startService, type TestService } from './support.ts'
import { authorization } from './tokens.ts'

const pages = ['README.md', 'docs/api.md'].map((page) => readFileSync(new URL(`../${page}`, import.meta.url), 'utf8'))
const documented = pages.join('\n')
const excerpt = gunzipSync(readFileSync(new URL('data/ubuntu-irc-excerpt.ndjson.gz', import.meta.url)))

/** Every command with curl in the README and in docs/api.md, with the response printed below it. */
const examples = [...documented.matchAll(/```sh\n(curl [^`]*)```\n\n```json\n([^`]*)```/g)].map(
  ([, command = '', answer = '']) => ({
    command,
    path: /127\.0\.0\.1:8787(\S+?)"/.exec(command)?.[1] ?? '',
    body: /--data-binary '\n([^']*)'/.exec(command)?.[1],
    answer: JSON.parse(answer) as { data: { computedAt?: string } },
  }),
)

describe('the README and docs/api.md', () => {
  let service: TestService
  beforeAll(async () => {
    // Where an answer tells when it was computed, that is when it is computed here.
    const now = examples.find(({ answer }) => answer.data.computedAt)?.answer.data.computedAt
    service = await startService(now === undefined ? {} : { now })
    const events = excerpt
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object)
    await service.store(events)
  })
  afterAll(() => service.close())

  it('have examples', () =>
    expect(examples.map(({ path }) => path.split('?')[0])).toEqual([
      '/analytics/overview',
      '/analytics/events',
      '/analytics/rolling',
      '/analytics/users/top',
    ]))

  it.each(examples)('show the response of $path', async ({ path, body, answer }) => {
    const reply =
      body === undefined
        ? await service.request('GET', path, {})
        : await service.request('POST', path, { body, headers: { 'Content-Type': 'application/x-ndjson' } })
    expect(reply.body).toEqual(answer)
  })

  it('download the file that the command names', async () => {
    const [, path = ''] = /curl -OJ "http:\/\/127\.0\.0\.1:8787(\S+)"/.exec(documented) ?? []
    const { status, headers } = await service.request('GET', path, {})
    expect([status, headers.get('Content-Disposition')]).toEqual([
      200,
      'attachment; filename="events-2011-02-18-2011-02-25.parquet"',
    ])
  })

  it('have client code that runs', async () => {
    const [, code = ''] = /```ts\n([^`]*)```/.exec(documented) ?? []
    const token = (await authorization(service)).slice('Bearer '.length)
    const ids: string[] = []
    const parts = {
      token,
      AnalyticsError,
      createAnalyticsClient: (options: AnalyticsClientOptions) =>
        createAnalyticsClient({ ...options, fetch: (url, init) => service.app.request(url, init) }),
      console: { log: (id: string) => ids.push(id) },
    }
    const body = code.replace(/^import .*$/m, '')
    await runInNewContext(`(async () => {${body}})()`, parts)
    expect(ids).toHaveLength(881)
  })
})
