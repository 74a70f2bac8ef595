/** What is shown: period, assistant, user and time zone. */
import { useEffect, useMemo, useState } from 'preact/hooks'
import type { AssistantActivity, TopUser } from '../src/client.ts'
import type { Navigation } from './navigation.ts'
import { addDays, homeTimeZone, PRESETS, rangeFault, type Preset } from './state.ts'

const NAMES: Record<Preset, string> = { '24h': '24 hours', '7d': '7 days', '30d': '30 days', '90d': '90 days' }

interface ControlsProps {
  navigation: Navigation
  /** To choose from. */
  assistants: AssistantActivity[] | undefined
  users: TopUser[] | undefined
}

export function Controls({ navigation, assistants, users }: ControlsProps) {
  const { state, go } = navigation
  const [choosing, setChoosing] = useState(false)
  useEffect(() => setChoosing(false), [state.range])
  const custom = choosing || state.range === 'custom'
  const names = useMemo(
    () =>
      [
        ...new Set([...(assistants ?? []).map(({ assistant }) => assistant), ...(state.assistant ? [state.assistant] : [])]),
      ].sort(),
    [assistants, state.assistant],
  )
  const zones = useMemo(
    () => [...new Set(['UTC', homeTimeZone(), state.timezone, ...Intl.supportedValuesOf('timeZone')])],
    [state.timezone],
  )
  return (
    <section class="controls" aria-label="What is shown">
      <fieldset class="segments">
        <legend>Period</legend>
        {(Object.keys(PRESETS) as Preset[]).map((range) => (
          <label key={range}>
            <input
              type="radio"
              name="range"
              value={range}
              checked={!custom && state.range === range}
              onChange={() => {
                setChoosing(false)
                go({ range, from: '', to: '' })
              }}
            />
            <span>{NAMES[range]}</span>
          </label>
        ))}
        <label>
          <input type="radio" name="range" value="custom" checked={custom} onChange={() => setChoosing(true)} />
          <span>Dates</span>
        </label>
      </fieldset>
      {custom && <Dates navigation={navigation} />}
      <div class="field">
        <label for="assistant">Assistant</label>
        <select id="assistant" value={state.assistant} onChange={(event) => go({ assistant: event.currentTarget.value })}>
          <option value="">All assistants</option>
          {names.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </div>
      <UserField navigation={navigation} users={users} />
      <div class="field">
        <label for="timezone">Time zone</label>
        <select id="timezone" value={state.timezone} onChange={(event) => go({ timezone: event.currentTarget.value })}>
          {zones.map((zone) => (
            <option key={zone} value={zone}>
              {zone.replaceAll('_', ' ')}
            </option>
          ))}
        </select>
      </div>
    </section>
  )
}

function Dates({ navigation: { state, go } }: { navigation: Navigation }) {
  const today = new Date().toISOString().slice(0, 10)
  const [from, setFrom] = useState(state.from || addDays(today, -6))
  const [to, setTo] = useState(state.to || today)
  const [fault, setFault] = useState('')
  useEffect(() => {
    if (!state.from) return
    setFrom(state.from)
    setTo(state.to)
    setFault('')
  }, [state.from, state.to])
  const submit = (event: Event) => {
    event.preventDefault()
    const wrong = rangeFault(from, to)
    setFault(wrong)
    if (!wrong) go({ range: 'custom', from, to })
  }
  return (
    <form class="dates" onSubmit={submit} noValidate>
      <div class="field">
        <label for="from">First day</label>
        <input
          id="from"
          type="date"
          value={from}
          aria-invalid={fault !== ''}
          aria-describedby="dates-fault"
          onInput={(event) => setFrom(event.currentTarget.value)}
        />
      </div>
      <div class="field">
        <label for="to">Last day</label>
        <input
          id="to"
          type="date"
          value={to}
          aria-invalid={fault !== ''}
          aria-describedby="dates-fault"
          onInput={(event) => setTo(event.currentTarget.value)}
        />
      </div>
      <button type="submit">Show</button>
      <p id="dates-fault" class="fault" role="alert">
        {fault}
      </p>
    </form>
  )
}

/** Ids are opaque and there may be millions: any can be typed, and the most active are proposed. */
function UserField({ navigation: { state, go }, users }: { navigation: Navigation; users: TopUser[] | undefined }) {
  const [user, setUser] = useState(state.user)
  useEffect(() => setUser(state.user), [state.user])
  const apply = (value: string) => {
    if (value.trim() !== state.user) go({ user: value.trim() })
  }
  return (
    <form
      class="field"
      onSubmit={(event) => {
        event.preventDefault()
        apply(user)
      }}
    >
      <label for="user">User</label>
      <input
        id="user"
        type="search"
        list="user-ids"
        placeholder="All users"
        autocomplete="off"
        spellcheck={false}
        maxLength={256}
        value={user}
        onInput={(event) => setUser(event.currentTarget.value)}
        onChange={(event) => apply(event.currentTarget.value)}
      />
      <datalist id="user-ids">
        {(users ?? []).map((one) => (
          <option key={one.user} value={one.user} />
        ))}
      </datalist>
    </form>
  )
}
