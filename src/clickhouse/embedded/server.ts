/**
 * A ClickHouse server in a process of its own, on a machine without ClickHouse: the child that `embedded.ts` forks.
 *
 * npm's `chdb` brings the engine as one shared library, libchdb. Its C function `chdb_query_cmdline(argc, argv)` is
 * the whole program `clickhouse local`, and `clickhouse local` can listen: SYSTEM START LISTEN opens the same HTTP
 * interface that a server has. The program ends with its last query, so the last one here sleeps for ever.
 *
 * - The function blocks for as long as the server lives. `runInNewThread` gives it a thread of its own, which keeps
 *   this event loop free to notice that the parent is gone.
 * - The parent's end, however it comes (SIGKILL too), closes the IPC channel, and that kills this process at once.
 * - It is always SIGKILL: `process.exit` waits for native threads that do not return. Nothing is lost by it, what
 *   ClickHouse has acknowledged is in its files.
 *
 * Arguments: the data directory, the configuration file, the HTTP port (0: any free one), the name of the file, in the
 * working directory, that receives the port and a newline once the server listens (none where it is empty), and the port
 * for other servers of a cluster (none where it is missing).
 */

/** The one message to the parent: why the engine cannot run on this machine, whatever its data. */
export interface Unavailable {
  unavailable: string
}

const die = (): void => {
  process.kill(process.pid, 'SIGKILL')
}
process.on('disconnect', die)
// The parent may have died before that line, while this module was loading.
if (!process.connected) die()

async function openEngine() {
  try {
    const { libchdbPath } = await import('chdb/libchdb')
    const ffi = await import('ffi-rs')
    ffi.open({ library: 'chdb', path: libchdbPath() })
    return ffi
  } catch (error) {
    const message: Unavailable = { unavailable: error instanceof Error ? error.message : String(error) }
    process.send?.(message, die)
    return undefined
  }
}

const [dataDirectory = '', configFile = '', port = '', portFile = '', tcpPort] = process.argv.slice(2)

const QUERIES = `
  ${tcpPort ? 'SYSTEM START LISTEN TCP;' : ''}
  SYSTEM START LISTEN HTTP;
  ${portFile ? `SELECT getServerPort('http_port') INTO OUTFILE '${portFile}' TRUNCATE FORMAT TSV;` : ''}
  SELECT sleepEachRow(3) FROM numbers(1000000000)
  SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null`

const ARGUMENTS = [
  'clickhouse',
  '--path',
  dataDirectory,
  '--config-file',
  configFile,
  '--listen_host',
  '127.0.0.1',
  '--http_port',
  port,
  ...(tcpPort ? ['--tcp_port', tcpPort] : []),
  // The level of the configuration file is not looked at (26.7): without this the log is a trace.
  '--log-level',
  'warning',
  // This session is the password-less user `default`, which the profile makes read-only for everybody who comes over
  // HTTP. Limits on the command line win over the profile, and only this session has a command line.
  '--readonly',
  '0',
  '--max_execution_time',
  '0',
  '--query',
  QUERIES,
]

const engine = await openEngine()
if (engine) {
  // Returns early where the server cannot start (its reason is on stderr), or when the sleeping query is killed.
  await engine.load({
    library: 'chdb',
    funcName: 'chdb_query_cmdline',
    retType: engine.DataType.External,
    paramsType: [engine.DataType.I32, engine.DataType.StringArray],
    paramsValue: [ARGUMENTS.length, ARGUMENTS],
    runInNewThread: true,
  })
  die()
}
