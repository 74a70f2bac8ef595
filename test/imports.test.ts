/** Which way imports point inside src, and that no files import each other in a circle. Type-only imports count too. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { expect, test } from 'vitest'

/** A file imports from its own folder and from those on lines above it. Rooms on one line do not know each other. */
const ORDER = [
  ['time', 'log', 'config', 'version', 'data-dir'],
  ['domain'],
  ['clickhouse', 'limits', 'auth'],
  ['rollups', 'ids'],
  ['maintenance'],
  ['ingest', 'analytics'],
  ['observe'],
  ['http'],
  ['service', 'client'],
  ['run'],
  ['main', 'commands'],
]

const roomOf = (file: string) => file.split('/')[1]!.replace(/\.ts$/, '')
const rank = (room: string) => ORDER.findIndex((line) => line.includes(room))
const mayImport = (from: string, to: string) => from === to || rank(to) < rank(from)

const files = readdirSync('src', { recursive: true })
  .map((file) => join('src', String(file)))
  .filter((file) => file.endsWith('.ts'))
const importsOf = new Map(
  files.map((file) => {
    const found = readFileSync(file, 'utf8').matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'(\.{1,2}\/[^']+)'/g)
    return [file, [...found].map(([, path]) => normalize(join(file, '..', path!))).filter((path) => path.endsWith('.ts'))]
  }),
)

test('every file is in a room of the order, and every import names a file', () => {
  expect(files.length).toBeGreaterThan(50)
  expect(files.filter((file) => rank(roomOf(file)) < 0)).toEqual([])
  expect([...importsOf.values()].flat().filter((file) => !importsOf.has(file))).toEqual([])
})

test('a file imports from its own room and from rooms before it', () => {
  const wrong = [...importsOf].flatMap(([from, to]) =>
    to.filter((file) => !mayImport(roomOf(from), roomOf(file))).map((file) => `${from} -> ${file}`),
  )
  expect(wrong).toEqual([])
})

test('no files import each other in a circle', () => {
  const circles: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]) => {
    const at = path.indexOf(file)
    if (at >= 0) circles.push([...path.slice(at), file].join(' -> '))
    if (at >= 0 || done.has(file)) return
    for (const next of importsOf.get(file) ?? []) visit(next, [...path, file])
    done.add(file)
  }
  for (const file of files) visit(file, [])
  expect(circles).toEqual([])
})
