/** The event log: newest first, by type, a page at a time. */
import { useState } from 'preact/hooks'
import type { Event } from '../src/client.ts'
import { formatCost, formatCount, formatExact, formatInstant } from './format.ts'
import { Chevron } from './icons.tsx'
import { StateLink } from './links.tsx'
import { Panel } from './panel.tsx'
import { EVENTS_A_PAGE, type AnswerTo } from './questions.ts'
import type { Navigation } from './navigation.ts'
import { TYPE_NAMES, type State } from './state.ts'
import type { Answer } from './use-answer.ts'

export function Events({ answer, navigation }: { answer: Answer<AnswerTo<'events'>>; navigation: Navigation }) {
  const { state, trail, go } = navigation
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set())
  const pagination = answer.value?.pagination
  const toggle = (id: string) => {
    const next = new Set(open)
    if (!next.delete(id)) next.add(id)
    setOpen(next)
  }
  const older = pagination?.nextCursor ?? ''
  const onward = () => go({ cursor: older }, [...trail, state.cursor])
  const back = () => go({ cursor: trail.at(-1) ?? '' }, trail.slice(0, -1))
  const first = trail.length * EVENTS_A_PAGE
  const place = (rows: Event[]) =>
    state.cursor && trail.length === 0
      ? `${formatCount(rows.length)} of ${formatExact(pagination?.total ?? 0)} events`
      : `${formatExact(first + 1)} to ${formatExact(first + rows.length)} of ${formatExact(pagination?.total ?? 0)} events`
  return (
    <Panel
      id="events"
      title="Event log"
      note="Newest first"
      actions={
        <div class="inline">
          <label for="type">Type</label>
          <select id="type" value={state.type} onChange={(event) => go({ type: event.currentTarget.value as State['type'] })}>
            <option value="">All types</option>
            {Object.entries(TYPE_NAMES).map(([type, name]) => (
              <option key={type} value={type}>
                {name}
              </option>
            ))}
          </select>
        </div>
      }
      answer={answer}
      timezone={state.timezone}
      lines={12}
      empty="No events match."
    >
      {({ data: rows }) =>
        rows.length === 0 ? null : (
          <>
            <div class="scroll" role="region" aria-label="Table of events" tabIndex={0}>
              <table class="events">
                <caption class="hidden">Events, newest first, times in {state.timezone}</caption>
                <thead>
                  <tr>
                    <th scope="col">
                      <span class="hidden">Details</span>
                    </th>
                    <th scope="col">Time</th>
                    <th scope="col">Type</th>
                    <th scope="col">Assistant</th>
                    <th scope="col">User</th>
                    <th scope="col" class="model">
                      Model
                    </th>
                    <th scope="col" class="number tokens">
                      Tokens in / out
                    </th>
                    <th scope="col" class="number cost">
                      Cost
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {rows.map((row) => (
                    <EventRow key={row.id} row={row} open={open.has(row.id)} onToggle={toggle} navigation={navigation} />
                  ))}
                </tbody>
              </table>
            </div>
            <nav class="pages" aria-label="Pages of the event log">
              <p>{place(rows)}</p>
              <button type="button" onClick={() => go({ cursor: '' })} disabled={!state.cursor}>
                Newest
              </button>
              <button type="button" onClick={back} disabled={trail.length === 0}>
                Newer
              </button>
              <button type="button" onClick={onward} disabled={!older || answer.stale}>
                Older
              </button>
            </nav>
          </>
        )
      }
    </Panel>
  )
}

interface EventRowProps {
  row: Event
  open: boolean
  onToggle(id: string): void
  navigation: Navigation
}

function EventRow({ row, open, onToggle, navigation }: EventRowProps) {
  const { timezone } = navigation.state
  const tokens = row.inputTokens + row.outputTokens > 0
  return (
    <>
      <tr>
        <td class="toggle">
          <button
            type="button"
            class="quiet"
            aria-expanded={open}
            aria-label={`Details of the event at ${formatInstant(row.timestamp, timezone)}`}
            onClick={() => onToggle(row.id)}
          >
            <Chevron />
          </button>
        </td>
        <td class="time">
          <time dateTime={row.timestamp}>{formatInstant(row.timestamp, timezone)}</time>
        </td>
        <td>
          <span class={`type ${row.eventType}`}>{TYPE_NAMES[row.eventType]}</span>
        </td>
        <td class="id">
          <StateLink navigation={navigation} change={{ assistant: row.assistant }}>
            {row.assistant}
          </StateLink>
        </td>
        <td class="id">
          {row.user === null ? (
            'removed'
          ) : (
            <StateLink navigation={navigation} change={{ user: row.user }}>
              {row.user}
            </StateLink>
          )}
        </td>
        <td class="model">{row.model ?? ''}</td>
        <td class="number tokens">{tokens && `${formatExact(row.inputTokens)} / ${formatExact(row.outputTokens)}`}</td>
        <td class="number cost">{row.cost > 0 && formatCost(row.cost)}</td>
      </tr>
      {open && (
        <tr class="details">
          <td colSpan={8}>
            <dl>
              <Detail name="Id" value={row.id} />
              <Detail name="UTC" value={row.timestamp} />
              {row.model && <Detail name="Model" value={row.model} />}
              {tokens && (
                <Detail name="Tokens in / out" value={`${formatExact(row.inputTokens)} / ${formatExact(row.outputTokens)}`} />
              )}
              {row.cost > 0 && <Detail name="Cost" value={`$${row.cost}`} />}
              {row.traceId && <Detail name="Trace" value={row.traceId} />}
              {Object.entries(row.metadata ?? {}).map(([name, value]) => (
                <Detail key={name} name={name} value={typeof value === 'string' ? value : JSON.stringify(value)} />
              ))}
            </dl>
          </td>
        </tr>
      )}
    </>
  )
}

const Detail = ({ name, value }: { name: string; value: string }) => (
  <div>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
)
