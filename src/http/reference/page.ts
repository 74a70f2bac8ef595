/** /docs: the OpenAPI document as a page to read. It knows nothing of the service but that document. */
import { html } from 'hono/html'
import type { Answer, OpenApi, Operation, Parameter, Reference, Schema } from './document.ts'

type Html = ReturnType<typeof html>

interface Entry {
  readonly method: string
  readonly path: string
  readonly operation: Operation
}

export function page(document: OpenApi): Html {
  const entries: Entry[] = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ method, path, operation: operation as Operation })),
  )
  const groups = document.tags.map((tag) => ({
    ...tag,
    entries: entries.filter(({ operation }) => operation.tags.includes(tag.name)),
  }))
  const { info, components } = document
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="description" content="${info.summary}" />
        <title>${info.title}: API reference</title>
        <link rel="stylesheet" href="/docs/reference.css" />
        <script src="/docs/reference.js" type="module"></script>
      </head>
      <body>
        <a class="skip" href="#content">Skip to the content</a>
        <header class="top">
          <a class="brand" href="#content">${info.title}</a>
          <span class="muted subtitle">API reference</span>
          <a class="download" href="/openapi.json">openapi.json</a>
        </header>
        <div class="columns">
          <nav aria-label="Reference">
            <details open>
              <summary>Contents</summary>
              <ul>
                <li><a href="#introduction">Introduction</a></li>
                <li><a href="#authentication">Authentication</a></li>
              </ul>
              ${groups.map(
                (group) =>
                  html`<h2 id="nav-${group.name}">${group.name}</h2>
                    <ul aria-labelledby="nav-${group.name}">
                      ${group.entries.map(
                        ({ method, path, operation }) =>
                          html`<li>
                            <a href="#${operation.operationId}"
                              >${badge(method)} <span class="path">${breakable(shortened(path))}</span></a
                            >
                          </li>`,
                      )}
                    </ul>`,
              )}
              <h2 id="nav-more">More</h2>
              <ul aria-labelledby="nav-more">
                <li><a href="#errors">Errors</a></li>
                <li><a href="#headers">Headers</a></li>
              </ul>
            </details>
          </nav>
          <main id="content" tabindex="-1">
            <section id="introduction" class="prose">
              <h1>${info.title} API</h1>
              <p class="lead">${info.summary}</p>
              ${paragraphs(info.description)}
            </section>
            <section id="authentication" class="prose">
              <h2>Authentication ${anchor('authentication', 'Authentication')}</h2>
              <p>${marked((components.securitySchemes['token'] as { description: string }).description)}</p>
              ${code('sh', 'curl "$URL/analytics/overview" -H "Authorization: Bearer $TOKEN"')}
            </section>
            ${groups.map(
              (group) =>
                html`<div class="group">
                    <h2>${group.name}</h2>
                    <p class="muted">${marked(group.description)}</p>
                  </div>
                  ${group.entries.map((entry) => section(entry, document))}`,
            )}
            ${errors(document)} ${headersSection(document)}
          </main>
        </div>
      </body>
    </html>`
}

// ------------------------------------------------------------------------------------------------------- one operation

function section({ method, path, operation }: Entry, document: OpenApi): Html {
  const { operationId: id, summary, description, security, parameters, requestBody, responses } = operation
  const scopes = security.flatMap((one) => Object.values(one).flat())
  const ok = responses['200'] as Answer
  const json = ok.content?.['application/json']
  const text = ok.content?.['text/plain']
  const inQuery = parameters.filter((parameter) => parameter.in === 'query')
  const inPath = parameters.filter((parameter) => parameter.in === 'path')
  const inHeader = parameters.filter((parameter) => parameter.in === 'header')
  const formats = Object.keys(ok.content ?? {})
  const address = `${method.toUpperCase()} ${path}`
  return html`<section id="${id}" class="operation" aria-labelledby="${id}-title">
    <div class="head">
      <h3 id="${id}-title">${summary} ${anchor(id, summary)}</h3>
      <p class="address">${badge(method)} <code>${breakable(path)}</code></p>
      <p>${marked(description)}</p>
      <p class="muted">
        ${scopes.length === 0 ? 'No token is needed.' : html`Scope ${scopes.map((scope) => html`<code>${scope}</code>`)}`}${
          formats.length > 1 ? html` · answers in ${join(formats.map((type) => html`<code>${type}</code>`))}` : ''
        }
      </p>
    </div>
    <div class="example">
      <h4>Request</h4>
      ${code('sh', curl(method, path, operation))}
      <h4>Answer</h4>
      ${json ? code('json', pretty(json.example)) : code('text', String(text?.example))}
    </div>
    <div class="tables">
      ${
        inPath.length > 0
          ? html`<h4>In the path</h4>
              ${parameterTable(id, `In the path of ${address}`, inPath)}`
          : ''
      }
      ${
        inQuery.length > 0
          ? html`<h4>Query parameters</h4>
              ${parameterTable(id, `Query parameters of ${address}`, inQuery)}`
          : ''
      }
      ${
        inHeader.length > 0
          ? html`<h4>Headers</h4>
              ${parameterTable(id, `Headers of ${address}`, inHeader)}`
          : ''
      }
      ${
        requestBody
          ? html`<h4>Body: ${join(Object.keys(requestBody.content).map((type) => html`<code>${type}</code>`))}</h4>
              ${fieldTable(`Fields of an event sent with ${address}`, document.components.schemas['SentEvent'] as Schema, document)}`
          : ''
      }
      ${
        json
          ? html`<h4>Fields of the answer</h4>
              ${fieldTable(`Fields of the answer of ${address}`, json.schema as Schema, document)}`
          : ''
      }
      <h4>Other statuses</h4>
      <ul class="statuses">
        ${Object.entries(responses)
          .filter(([status]) => status !== '200')
          .map(([status, response]) =>
            '$ref' in response
              ? html`<li>
                  <a href="#error-${nameOf(response)}"><b>${status}</b> ${spaced(nameOf(response))}</a>
                </li>`
              : html`<li><b>${status}</b> ${marked(response.description)}</li>`,
          )}
      </ul>
    </div>
  </section>`
}

function parameterTable(id: string, caption: string, parameters: readonly Parameter[]): Html {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption}">
    <table>
      <caption>
        ${caption}
      </caption>
      <thead>
        <tr>
          <th scope="col">Name</th>
          <th scope="col">Type</th>
          <th scope="col">Meaning</th>
        </tr>
      </thead>
      <tbody>
        ${parameters.map(
          ({ name, required, description, schema, example }) =>
            html`<tr id="${id}-${name}">
              <th scope="row"><code>${name}</code>${required ? html`<span class="required">required</span>` : ''}</th>
              <td>
                <span class="type">${typeOf(schema)}</span
                >${limits(schema).map((limit) => html`<span class="limit">${limit}</span>`)}
              </td>
              <td>
                ${marked(description)}${choices(schema)}${
                  schema.default === undefined
                    ? ''
                    : html` <span class="default">Default <code>${String(schema.default)}</code>.</span>`
                }${
                  example === undefined || example === schema.default || schema.enum
                    ? ''
                    : html` <span class="muted">For example <code>${[example].flat().map(String).join(', ')}</code>.</span>`
                }
              </td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`
}

// --------------------------------------------------------------------------------------------------------------- fields

interface Field {
  /** Where it lies, such as `data.events.`, and what it is called there. */
  readonly prefix: string
  readonly name: string
  readonly type: string
  readonly limits: readonly string[]
  readonly description: string
  readonly choices: readonly unknown[]
  readonly optional: boolean
}

/** The fields of an object and of what lies in it, in the order in which they are sent. */
function fieldsOf(schema: Schema, document: OpenApi, prefix = ''): Field[] {
  const [object] = unwrapped(schema, document)
  return Object.entries(object.properties ?? {}).flatMap(([key, value]) => {
    const [inner, nullable] = unwrapped(value, document)
    const list = inner.type === 'array'
    const [item] = list ? unwrapped(inner.items ?? {}, document) : [inner]
    const description = value.description ?? inner.description ?? item.description ?? ''
    const name = `${key}${list ? '[]' : ''}`
    const type = typeOf(inner, document) + (nullable ? ' or null' : '')
    const field: Field = {
      prefix,
      name,
      type,
      limits: limits(inner),
      description,
      choices: item.enum ?? [],
      optional: !(object.required ?? []).includes(key),
    }
    // A row for `success` would say nothing in every table.
    if (prefix === '' && key === 'success') return []
    return [field, ...fieldsOf(item, document, `${prefix}${name}.`)]
  })
}

function fieldTable(caption: string, schema: Schema, document: OpenApi): Html {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption}">
    <table class="fields">
      <caption>
        ${caption}
      </caption>
      <thead>
        <tr>
          <th scope="col">Field</th>
          <th scope="col">Type</th>
          <th scope="col">Meaning</th>
        </tr>
      </thead>
      <tbody>
        ${fieldsOf(schema, document).map(
          (field) =>
            html`<tr>
              <th scope="row">
                <code><span class="where">${breakable(field.prefix)}</span>${field.name}</code
                >${field.optional ? html`<span class="limit">optional</span>` : ''}
              </th>
              <td>
                <span class="type">${field.type}</span>${field.limits.map((limit) => html`<span class="limit">${limit}</span>`)}
              </td>
              <td>${marked(field.description)}${choices({ enum: [...field.choices] })}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`
}

/** What a schema means behind its reference and beside null, and whether it may be null. */
function unwrapped(schema: Schema, document: OpenApi): [Schema, boolean] {
  if (schema.$ref) {
    const { $ref, ...beside } = schema
    const [inner, nullable] = unwrapped(document.components.schemas[nameOf({ $ref })] ?? {}, document)
    return [{ ...inner, ...beside }, nullable]
  }
  const some = schema.anyOf?.filter(({ type }) => type !== 'null')
  if (schema.anyOf && some?.length === 1) return [{ ...unwrapped(some[0] as Schema, document)[0] }, true]
  return [schema, false]
}

function typeOf(schema: Schema, document?: OpenApi): string {
  if (schema.const !== undefined) return String(schema.const)
  if (schema.format === 'date-time') return 'date-time'
  if (schema.type === 'array') {
    const items = document ? unwrapped(schema.items ?? {}, document)[0] : (schema.items ?? {})
    return `list of ${typeOf(items, document)}s`
  }
  return String(schema.type ?? 'any')
}

function limits({ minimum, maximum, minLength, maxLength, maxItems, items }: Schema): string[] {
  const most = maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER ? maximum : undefined
  const found: string[] = []
  if (minimum !== undefined && most !== undefined) found.push(`${grouped(minimum)} to ${grouped(most)}`)
  if (maxItems !== undefined) found.push(`at most ${grouped(maxItems)}`)
  const text = items ?? { minLength, maxLength }
  if (text.maxLength !== undefined) found.push(`${text.minLength ?? 0} to ${text.maxLength} characters`)
  return found
}

const choices = (schema: Schema) =>
  (schema.enum ?? []).length > 0
    ? html` <span class="choices">One of ${join((schema.enum ?? []).map((value) => html`<code>${String(value)}</code>`))}.</span>`
    : ''

// ----------------------------------------------------------------------------------------------------- errors, headers

function errors({ components }: OpenApi): Html {
  const statuses = Object.entries(components.responses)
  return html`<section id="errors" class="prose">
    <h2>Errors ${anchor('errors', 'Errors')}</h2>
    <p>
      Every refusal is JSON of one shape, and names everything that is wrong at once. <code>requestId</code> is what to ask the
      operator about.
    </p>
    ${code('json', pretty(components.responses['BadRequest']?.content?.['application/json']?.example))}
    <dl class="errors">
      ${statuses.map(
        ([name, { description, headers }]) =>
          html`<dt id="error-${name}">${spaced(name)}</dt>
            <dd>${marked(description)} ${headersOf(headers)}</dd>`,
      )}
    </dl>
  </section>`
}

const headersOf = (headers: Answer['headers']) => {
  const names = Object.keys(headers ?? {}).filter((name) => name !== 'X-Request-Id')
  return names.length === 0
    ? ''
    : html`<span class="muted"
        >With ${join(names.map((name) => html`<a href="#header-${name}"><code>${name}</code></a>`))}.</span
      >`
}

function headersSection({ components }: OpenApi): Html {
  return html`<section id="headers" class="prose">
    <h2>Headers ${anchor('headers', 'Headers')}</h2>
    <dl>
      ${Object.entries(components.headers).map(
        ([name, { description }]) =>
          html`<dt id="header-${name}"><code>${name}</code></dt>
            <dd>${marked(description)}</dd>`,
      )}
    </dl>
  </section>`
}

// --------------------------------------------------------------------------------------------------------------- pieces

const badge = (method: string) => html`<span class="method ${method}">${method.toUpperCase()}</span>`
const anchor = (id: string, what: string) => html`<a class="anchor" href="#${id}" aria-label="Link to ${what}">#</a>`
const nameOf = ({ $ref }: Reference) => $ref.slice($ref.lastIndexOf('/') + 1)
const shortened = (path: string) => path.replace('/analytics', '')
const spaced = (name: string) => name.replaceAll(/(?<=[a-z])(?=[A-Z])/g, ' ')
const grouped = (value: number) => value.toLocaleString('en-US')
const paragraphs = (text: string) => text.split('\n\n').map((paragraph) => html`<p>${marked(paragraph)}</p>`)
/** The one mark of the document's descriptions: backticks around what is code. */
const marked = (text: string) => text.split('`').map((part, at) => (at % 2 === 1 ? html`<code>${part}</code>` : part))
/** May be broken after a slash or a dot where there is no room. */
const breakable = (text: string) =>
  text
    .split(/(?<=[/.])/)
    .filter(Boolean)
    .map((part) => html`${part}<wbr />`)
const join = (parts: readonly Html[]) => parts.map((part, at) => (at === 0 ? part : html`, ${part}`))

/** Scrolls and is copied; the button is added by the script, as it is of no use without. */
const code = (language: 'sh' | 'json' | 'text', text: string) =>
  html`<div class="code">
    <div class="bar">${{ sh: 'Shell', json: 'JSON', text: 'Text' }[language]}</div>
    <pre class="${language}" tabindex="0"><code>${text}</code></pre>
  </div>`

/** JSON with what fits on a line on one line. */
function pretty(value: unknown, indent = ''): string {
  const short = JSON.stringify(value)
  if (short === undefined || typeof value !== 'object' || value === null || short.length + indent.length < 60) return short ?? ''
  const inner = `${indent}  `
  const parts = Array.isArray(value)
    ? value.map((item) => inner + pretty(item, inner))
    : Object.entries(value).map(([key, item]) => `${inner}${JSON.stringify(key)}: ${pretty(item, inner)}`)
  const [open, close] = Array.isArray(value) ? '[]' : '{}'
  return `${open}\n${parts.join(',\n')}\n${indent}${close}`
}

function curl(method: string, path: string, { security, parameters, requestBody, 'x-query': query }: Operation): string {
  const needed = parameters.filter((parameter) => parameter.in === 'query' && parameter.required)
  const shown = query ?? Object.fromEntries(needed.map(({ name, example }) => [name, String(example)]))
  const search = new URLSearchParams(shown).toString()
  const filled = parameters.reduce(
    (text, { name, example }) => text.replace(`{${name}}`, encodeURIComponent(String(example))),
    path,
  )
  const lines = [`curl "$URL${filled}${search && `?${search}`}"`]
  if (method !== 'get' && !requestBody) lines.push(`-X ${method.toUpperCase()}`)
  if (security.length > 0) lines.push('-H "Authorization: Bearer $TOKEN"')
  if (requestBody) {
    lines.push(
      '-H "Content-Type: application/json"',
      `--data '${JSON.stringify(requestBody.content['application/json']?.example)}'`,
    )
  }
  return lines.join(' \\\n  ')
}
