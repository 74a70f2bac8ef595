/**
 * Loaded into the service before anything else (`node --import`): sets its clock ahead by FAULTS_CLOCK_AHEAD_MS. The suite
 * moves it on by days from one start to the next, so that spans of every level come to their end and are sealed while
 * processes are being killed. It stands still in between, as far as the difference goes: timeouts stay what they are.
 */
const AHEAD_MS = Number(process.env['FAULTS_CLOCK_AHEAD_MS'] ?? 0)

const RealDate = Date

class AheadDate extends RealDate {
  constructor(...given: [] | [number | string | Date]) {
    if (given.length === 0) super(RealDate.now() + AHEAD_MS)
    else super(...(given as [number]))
  }

  static override now(): number {
    return RealDate.now() + AHEAD_MS
  }
}

globalThis.Date = AheadDate as unknown as DateConstructor
