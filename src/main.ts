/** `npm start`: the service on one port, until SIGINT or SIGTERM. */
import { run } from './run.ts'

await run()
