/** The schema is in clickhouse/*.sql alone, and what TypeScript repeats of it is the same. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { COARSE, CUTS, DAY, LEVEL_OF, SPLIT_DAY, USER_LEVELS } from '../../src/rollups/granularities.ts'

const sql = (name: string) => readFileSync(`clickhouse/${name}`, 'utf8').replace(/--[^\n]*/g, '')

/**
 * Statements that are made from those of the SQL files (their forms on a cluster, copies of tables for a backup), and two tables
 * that are no part of a migrated database: the contents of a backup, and the mark of a restore that has not ended.
 */
const DERIVED = new Set(['src/clickhouse/cluster-config.ts', 'src/maintenance/backup.ts', 'src/maintenance/restore.ts'])

test('no table and no view is defined in TypeScript', () => {
  const files = readdirSync('src', { recursive: true })
    .map((file) => join('src', String(file)))
    .filter((file) => file.endsWith('.ts'))
  const defining = files.filter((file) =>
    /\bCREATE (OR REPLACE )?(TABLE|MATERIALIZED VIEW|VIEW)\b/i.test(readFileSync(file, 'utf8')),
  )
  expect(new Set(defining)).toEqual(DERIVED)
})

/** (level, seconds) as the view of a file writes them. */
const spansIn = (text: string) =>
  new Map(
    [...text.matchAll(/\((\d+), (?:(?:0|assistant_no), )?(\d+)\)/g)].map(([, level, seconds]) => [
      Number(level),
      Number(seconds),
    ]),
  )

test('the view of activity writes the levels that TypeScript knows, with the same lengths', () => {
  expect(spansIn(sql('003_activity.sql'))).toEqual(new Map([...LEVEL_OF].map(([id, { seconds }]) => [id, seconds])))
})

test('the view of user_activity writes days and the coarse levels', () => {
  expect(spansIn(sql('004_user_activity.sql'))).toEqual(
    new Map([...USER_LEVELS, ...COARSE].map(({ id, seconds }) => [id, seconds])),
  )
})

test('days are cut at the same quarters of an hour', () => {
  const [, offset, seconds, list = '', count] =
    /arrayMap\(q -> \((\d+) \+ q, 0, (\d+)\), arraySlice\(\s*\[([\d, \s]+)\], 1, if\(late_levels = 0, 0, (\d+)\)/.exec(
      sql('003_activity.sql'),
    ) ?? []
  expect(list.split(',').map(Number)).toEqual(CUTS)
  expect([offset, seconds, count].map(Number)).toEqual([SPLIT_DAY.id, DAY.seconds, CUTS.length])
})

test('rows lie in buckets of the same length', () => {
  const text = sql('003_activity.sql')
  const [, whole] = /multiIf\(assistant_no = 0 OR level = (\d+), toDateTime\(0/.exec(text) ?? []
  const fixed = [...text.matchAll(/level = (\d+), toDateTime\(intDiv\(toUnixTimestamp\(start\), (\d+)\) \* (\d+), 'UTC'\)/g)]
  expect(fixed.every(([, , by, times]) => by === times)).toBe(true)
  const listed = new Map(fixed.map(([, level, seconds]) => [Number(level), Number(seconds)]))
  // Of a level that is not listed, each span is a bucket of its own.
  const buckets = new Map([...LEVEL_OF].map(([id, { seconds }]) => [id, id === Number(whole) ? 0 : (listed.get(id) ?? seconds)]))
  expect(buckets).toEqual(new Map([...LEVEL_OF].map(([id, { bucketSeconds }]) => [id, bucketSeconds])))
})
