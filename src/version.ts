import { readFileSync } from 'node:fs'

/** The version of this build, as package.json states it: reported by metrics, traces, the API description and the MCP server. */
export const VERSION = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string })
  .version
