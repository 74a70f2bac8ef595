/** GET /analytics/assistants: what each assistant did in the range, busiest first, and which fell idle. */
import * as v from 'valibot'
import { answerOf, flag, instant, text } from '../../domain/response-fields.ts'
import { MIN_INSTANT } from '../../time/instant.ts'
import { toIso } from '../../time/iso8601.ts'
import { endpoint } from '../endpoint.ts'
import { toChange, toMetrics } from '../figures.ts'
import { common, range } from '../parameters.ts'
import { sumsAndUsersByAssistant } from '../queries/sums-by-assistant.ts'
import { Change, FIGURES, metricFields } from '../response-fields.ts'
import { type Figures, NOTHING } from '../totals.ts'

export const AssistantActivity = v.strictObject({
  assistant: text('Its id.'),
  ...metricFields,
  share: v.pipe(v.number(), v.minValue(0), v.maxValue(1), v.description('Its part of all events of the range.')),
  idle: flag('No event in the range, though there were some in the range before.'),
  lastActiveAt: instant('Its last event in the range, or in the one before.'),
  previous: v.pipe(v.strictObject(metricFields), v.description('The range of the same length before.')),
  change: Change,
})

export const assistants = endpoint({
  path: '/analytics/assistants',
  operationId: 'assistants',
  summary: 'Assistant activity metrics',
  description:
    'What each assistant did in the range, busiest first, and against the range of the same length before. Those that were active before and are not now are `idle`.',
  agentHint: FIGURES,
  parameters: { ...range, ...common },
  response: answerOf(v.array(AssistantActivity)),

  async handle({ store, names, scope, parameters }) {
    const { startDate, endDate } = parameters
    const before = { from: startDate - (endDate - startDate), to: startDate }
    const ranges = [before, { from: startDate, to: endDate }].filter(({ to }) => to > MIN_INSTANT)
    const rows = await store.read(scope, sumsAndUsersByAssistant(scope, 'assistants', ranges))
    const nameOf = await names.names(scope.tenant, 'assistant', [...new Set(rows.map((row) => row.assistant))], scope.onQuery)
    const byAssistant = new Map<number, { earlier: Figures; current: Figures }>()
    for (const row of rows) {
      const pair = byAssistant.get(row.assistant) ?? { earlier: NOTHING, current: NOTHING }
      pair[row.entry === startDate ? 'current' : 'earlier'] = row
      byAssistant.set(row.assistant, pair)
    }
    const list = [...byAssistant].map(([number, { earlier, current }]) => {
      const [metrics, previous] = [toMetrics(current), toMetrics(earlier)]
      return {
        assistant: nameOf.get(number) ?? '',
        ...metrics,
        share: 0,
        idle: metrics.total === 0,
        lastActiveAt: toIso(current.lastAt || earlier.lastAt),
        previous,
        change: toChange(metrics, previous),
      }
    })
    const all = list.reduce((sum, { total }) => sum + total, 0)
    for (const entry of list) entry.share = all === 0 ? 0 : entry.total / all
    list.sort((a, b) => b.total - a.total || Buffer.compare(Buffer.from(a.assistant), Buffer.from(b.assistant)))
    return { covers: { from: before.from, to: endDate }, data: list }
  },
})
