/** Callers with one connection each, who send until everything is acknowledged. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Dice } from '../faults/dice.ts'
import type { Entry } from '../faults/ledger.ts'
import { batchOf, post, type Outcome } from '../faults/post.ts'
import type { Deployment } from './deployment.ts'

/** A caller that cannot get everything stored in this time gives up, and the round fails. */
const GIVE_UP_MS = 120_000

export interface StreamOptions {
  site: Deployment
  dice: Dice
  /** Of one tenant or several; sent in random order. */
  entries: readonly Entry[]
  /** Where a batch goes at its n-th try, from 0. */
  url: (tries: number) => string
  /** Events a batch has at most. */
  most?: number
  timeoutMs?: number
}

/** Sends entries in batches of 1 to `most`, 150 by default, one after the other, until each is acknowledged. */
export async function stream({ site, dice, entries, url, most = 150, timeoutMs }: StreamOptions): Promise<void> {
  const deadline = performance.now() + GIVE_UP_MS
  for (const { tenant, batch } of batches(dice, entries, most)) {
    for (let tries = 0; ; tries++) {
      const { status } = await send(site, dice, tenant, batch, url(tries), timeoutMs)
      if (status === 'stored') break
      if (performance.now() > deadline) throw new Error(`a caller could not get a batch stored within ${GIVE_UP_MS / 1_000} s`)
      await sleep(dice.between(50, 300))
    }
  }
}

/** Sends one batch once. */
export function send(
  site: Deployment,
  dice: Dice,
  tenant: string,
  entries: readonly Entry[],
  url: string,
  timeoutMs?: number,
): Promise<Outcome> {
  const { ledger, tokens } = site
  return post(batchOf(dice, tenant, entries), { ledger, tokens, url, ...(timeoutMs === undefined ? {} : { timeoutMs }) })
}

function batches(dice: Dice, entries: readonly Entry[], most: number): Array<{ tenant: string; batch: Entry[] }> {
  const byTenant = new Map<string, Entry[]>()
  for (const entry of shuffled(dice, entries)) {
    const list = byTenant.get(entry.tenant)
    if (list) list.push(entry)
    else byTenant.set(entry.tenant, [entry])
  }
  const cut: Array<{ tenant: string; batch: Entry[] }> = []
  for (const [tenant, list] of byTenant) {
    for (let at = 0; at < list.length;) {
      const size = dice.between(1, most)
      cut.push({ tenant, batch: list.slice(at, at + size) })
      at += size
    }
  }
  return shuffled(dice, cut)
}

export function shuffled<T>(dice: Dice, list: readonly T[]): T[] {
  const result = [...list]
  for (let at = result.length - 1; at > 0; at--) {
    const other = dice.between(0, at)
    ;[result[at], result[other]] = [result[other] as T, result[at] as T]
  }
  return result
}

/** The same entries to every instance at once, over one connection each. What is not answered goes to another instance. */
export async function rivals(
  site: Deployment,
  dice: Dice,
  entries: readonly Entry[],
  options: { most?: number; timeoutMs?: number } = {},
): Promise<void> {
  const streams = site.instances.map((_, at) => stream({ site, dice, entries, url: (tries) => site.url(at + tries), ...options }))
  await Promise.all(streams)
}

/** Sends new entries to every instance at once, a few hundred at a time, until it is told to stop. */
export function keepRivals(
  site: Deployment,
  dice: Dice,
  make: () => Entry[],
  options: { most?: number; timeoutMs?: number } = {},
): { stop(): Promise<void> } {
  const ending = new AbortController()
  const running = (async () => {
    while (!ending.signal.aborted) await rivals(site, dice, make(), options)
  })()
  // It is waited for in `stop`.
  running.catch(() => {})
  return {
    stop() {
      ending.abort()
      return running
    },
  }
}
