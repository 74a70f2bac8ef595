/** Takes the lock of a DATA_DIR, tells its parent, and stays; see data-dir.test.ts. */
import { DataDirInUseError, lockDataDir } from '../src/data-dir.ts'

const answer = await lockDataDir(process.argv[2] as string).then(
  () => 'taken',
  (error: unknown) => (error instanceof DataDirInUseError ? 'refused' : String(error)),
)
process.send?.(answer)
setInterval(() => {}, 60_000)
process.on('disconnect', () => process.exit())
