/** The documents: links lead somewhere, files they name exist, tables say what the code says, nothing points outside. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ENDPOINTS } from '../src/analytics/endpoints/index.ts'
import { common } from '../src/analytics/parameters.ts'
import { ERROR_CODES } from '../src/domain/errors.ts'
import { openApi } from '../src/http/reference/document.ts'

/** Written in another change. A page that exists is taken out of this list: a test says so. */
const PENDING_PAGES = new Set<string>()
const PENDING_SCRIPTS = new Set<string>()

const IGNORED = /(^|\/)(node_modules|\.git|dist)(\/|$)|^data(\/|$)/
const FILES = readdirSync('.', { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => normalize(join(entry.parentPath, entry.name)))
  .filter((file) => !IGNORED.test(file))
const FOLDERS = new Set(FILES.flatMap((file) => foldersOf(file)))
const NAMES = new Set(FILES.map((file) => basename(file)))

/** Results of the benchmark are made by a program and name no files. */
const PAGES = FILES.filter((file) => file.endsWith('.md') && !file.startsWith('bench/results/'))
const read = (file: string) => readFileSync(file, 'utf8')

function foldersOf(file: string): string[] {
  const folder = dirname(file)
  return folder === '.' ? [] : [folder, ...foldersOf(folder)]
}

const exists = (path: string) => FILES.includes(path) || FOLDERS.has(path.replace(/\/$/, ''))

const withoutCode = (text: string) => text.replace(/^```[^]*?^```$/gm, '')

/** The anchors that GitHub gives to the headings of a page. */
function anchorsOf(page: string): Set<string> {
  const headings = [...withoutCode(read(page)).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading as string)
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/g, '-'),
    ),
  )
}

/** Relative links of a text, images too. */
const linksOf = (text: string) =>
  [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, to]) => to as string).filter((to) => !/^https?:/.test(to))

/** Paths from the root of the repository; a star stands for anything. */
const PATH = /(?<![\w.@/-])(?:src|test|docs|clickhouse|bench|dashboard|docker|\.ci|\.github)\/[\w.*/{},-]*\w(?:\.\w+)?/g
/** Names of files without a folder, in code quotes. */
const NAME = /`([\w.-]+\.(?:ts|tsx|sql|xml|mjs|yml))`/g

/** What of a text names a file that is not there. */
function missingFiles(text: string): string[] {
  const paths = [...text.matchAll(PATH)].map(([path]) => path).filter((path) => !path.includes('*') && !path.includes('{'))
  const names = [...text.matchAll(NAME)].map(([, name]) => name as string)
  return [...paths.filter((path) => !exists(path) && !PENDING_PAGES.has(path)), ...names.filter((name) => !NAMES.has(name))]
}

describe('every document', () => {
  test('is found', () => {
    expect(PAGES).toEqual(
      expect.arrayContaining([
        'README.md',
        'CONTRIBUTING.md',
        'docs/api.md',
        'docs/decisions/0001-writer-lease.md',
        'test/README.md',
      ]),
    )
    expect([...PENDING_PAGES].filter((page) => FILES.includes(page))).toEqual([])
  })

  test.each(PAGES)('%s has links that lead to a file and a heading of the repository', (page) => {
    const dead = linksOf(read(page)).filter((link) => {
      const [path = '', anchor] = link.split('#')
      const target = path === '' ? page : normalize(join(dirname(page), path))
      if (PENDING_PAGES.has(target)) return false
      return !exists(target) || (anchor !== undefined && !anchorsOf(target).has(anchor))
    })
    expect(dead).toEqual([])
  })

  test.each(PAGES)('%s names files that exist', (page) => {
    // A link has been checked from its page; as text it would be read from the root.
    const text = read(page).replace(/\]\([^)\s]+\)/g, ']')
    expect(missingFiles(text)).toEqual([])
  })

  test.each(PAGES)('%s names nothing outside of the repository', (page) => {
    expect(read(page).match(/\/work\/|\.\.\/shared|\b(?:DESIGN|LAYOUT|STYLE|ISSUES?)(?:\.md|\b)/g) ?? []).toEqual([])
  })

  test.each(PAGES)('%s names scripts of package.json', (page) => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const named = [...read(page).matchAll(/npm run (?:--silent )?([a-z][a-z:]*)/g)].map(([, name]) => name as string)
    expect(named.filter((name) => !Object.hasOwn(scripts, name) && !PENDING_SCRIPTS.has(name))).toEqual([])
  })

  test('is reached from the README', () => {
    const reached = new Set<string>()
    const visit = (page: string) => {
      if (reached.has(page) || !PAGES.includes(page)) return
      reached.add(page)
      for (const link of linksOf(read(page))) visit(normalize(join(dirname(page), link.split('#')[0] || basename(page))))
    }
    visit('README.md')
    expect(PAGES.filter((page) => !reached.has(page))).toEqual([])
  })
})

test('comments name files that exist', () => {
  const commented = FILES.filter((file) => /\.(ts|tsx|sql|xml|yml|mjs|sh)$/.test(file) && !file.startsWith('test/'))
  const comment = /\/\*[^]*?\*\/|<!--[^]*?-->|(?:^|\s)(?:\/\/|--|#) .*$/gm
  const missing = commented.flatMap((file) => {
    const text = (read(file).match(comment) ?? []).join('\n')
    return [...text.matchAll(PATH)]
      .map(([path]) => path)
      .filter((path) => /\.(ts|tsx|sql|md|xml|yml)$/.test(path) && !exists(path))
      .map((path) => `${file}: ${path}`)
  })
  expect(missing).toEqual([])
})

/** The text of a section of a page, up to the next heading of the same or a higher level. */
function section(page: string, heading: string): string {
  const text = read(page)
  const from = text.indexOf(`\n${heading}\n`)
  const level = /^#+/.exec(heading)?.[0].length ?? 0
  const rest = text.slice(from + heading.length + 2)
  return from < 0 ? '' : rest.slice(0, rest.search(new RegExp(`^#{1,${level}} `, 'm')) >>> 0)
}

/** The names in code quotes of the first column of the tables of a text. */
const firstColumn = (text: string, name = /`([^`]+)`/g) =>
  [...text.matchAll(/^\|([^|]*)\|/gm)].flatMap(([, cell = '']) => [...cell.matchAll(name)].map(([, found]) => found as string))

describe('docs/api.md', () => {
  test.each(Object.entries(ENDPOINTS))('lists the parameters of GET %s', (path, { parameters }) => {
    const own = Object.keys(parameters).filter((name) => !Object.hasOwn(common, name))
    expect(firstColumn(section('docs/api.md', `### GET ${path}`)).sort()).toEqual(own.sort())
  })

  test('has every route of the OpenAPI document', () => {
    const text = read('docs/api.md')
    const routes = Object.keys(openApi().paths)
    expect(routes.length).toBeGreaterThan(10)
    expect(routes.filter((path) => !text.includes(path))).toEqual([])
  })

  test('lists every error code with its status', () => {
    const rows = [...section('docs/api.md', '## Rules that hold everywhere').matchAll(/^\| (\d{3}) \| ([^|]*) \|/gm)]
    const listed = rows.flatMap(([, status, codes = '']) =>
      [...codes.matchAll(/`(\w+)`/g)].map(([, code]) => [code, Number(status)]),
    )
    expect(Object.fromEntries(listed)).toEqual(ERROR_CODES)
  })
})

test('docs/clickhouse-schema.md lists every table', () => {
  const sources = FILES.filter((file) => /^clickhouse\/(\d+_|cluster\/).*\.sql$/.test(file))
    .map(read)
    .join('\n')
  const tables = [...sources.matchAll(/CREATE TABLE IF NOT EXISTS (\w+)/g)].map(([, name]) => name as string)
  const [overview = ''] = read('docs/clickhouse-schema.md').split('\n## ')
  expect(firstColumn(overview).sort()).toEqual([...new Set(tables)].sort())
})

test('docs/decisions/0008-dependencies.md lists every dependency', () => {
  const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string>>
  const all = ['dependencies', 'optionalDependencies', 'devDependencies'].flatMap((kind) => Object.keys(manifest[kind] ?? {}))
  expect(firstColumn(read('docs/decisions/0008-dependencies.md')).sort()).toEqual(all.sort())
})

test('CHANGELOG.md names the version of package.json once it is released', () => {
  const { version } = JSON.parse(read('package.json')) as { version: string }
  const released = [...read('CHANGELOG.md').matchAll(/^## \[(\d[^\]]*)\]/gm)].map(([, name]) => name)
  expect(read('CHANGELOG.md')).toContain('## [Unreleased]')
  if (released.length > 0) expect(released[0]).toBe(version)
})

test('decisions are numbered without gaps and listed', () => {
  const pages = readdirSync('docs/decisions')
    .filter((name) => name !== 'README.md')
    .sort()
  expect(pages.map((name) => Number(name.slice(0, 4)))).toEqual(pages.map((_, at) => at + 1))
  expect(pages.filter((name) => !read('docs/decisions/README.md').includes(`(${name})`))).toEqual([])
  expect(pages.filter((name) => !read(`docs/decisions/${name}`).startsWith(`# ${Number(name.slice(0, 4))}. `))).toEqual([])
})

test('the README is short and the files around the code are there', () => {
  expect(read('README.md').split('\n').length).toBeLessThanOrEqual(170)
  for (const file of ['LICENSE', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md', '.github/workflows/ci.yml'])
    expect(existsSync(file)).toBe(true)
})
