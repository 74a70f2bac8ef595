/** The page of somebody who is signed in. Each panel shows one answer of the API. */
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { Api, type ApiFailure } from './api.ts'
import { Assistants } from './assistants.tsx'
import { Cards } from './cards.tsx'
import { Controls } from './controls.tsx'
import { Events } from './events.tsx'
import { formatCount, formatDay, formatRate, formatShort, formatTime } from './format.ts'
import { Cross, Logo, Moon, Refresh, Sun } from './icons.tsx'
import { StateLink } from './links.tsx'
import { useNavigation, type Navigation } from './navigation.ts'
import { Failure, Skeleton } from './panel.tsx'
import { endOf, questionsOf, summaryOf, type AnswerTo, type Summary } from './questions.ts'
import { claimsOf } from './session.ts'
import { explain } from './sign-in.tsx'
import { writeState, type State } from './state.ts'
import { useTheme } from './theme.ts'
import { Trends } from './trends.tsx'
import { TopUsers } from './users.tsx'
import { useAnswer, type Answer } from './use-answer.ts'

/** Between two looks for what is new, while the page is seen. */
const LIVE_MS = 15_000

interface DashboardProps {
  token: string
  onSignOut(reason?: string): void
}

export function Dashboard({ token, onSignOut }: DashboardProps) {
  const api = useMemo(() => new Api(token, (failure: ApiFailure) => onSignOut(explain(failure))), [token])
  const navigation = useNavigation()
  const [theme, toggleTheme] = useTheme()
  const [live, setLive] = useState(true)
  const [round, setRound] = useState(0)
  const refresh = useCallback(() => setRound((count) => count + 1), [])
  useLive(live, api, refresh)

  const { state } = navigation
  // The end of a range that ends now moves when something is asked, and only then.
  const end = useMemo(() => endOf(Date.now()), [round, writeState(state)])
  const questions = questionsOf(state, end)
  const fixed = questionsOf(state, FIXED_END)
  const toSummary = (answer: AnswerTo<'rolling' | 'metrics'>) => summaryOf(answer, state.from)
  const summary = useAnswer(api, fixed.summary, questions.summary, round, toSummary)
  // Most ranges have a trend, and then it is in the answer behind the cards.
  const apart = fixed.trend !== fixed.summary
  const ownTrend = useAnswer(api, fixed.trend, apart ? questions.trend : undefined, round, toSummary)
  const trend = apart ? ownTrend : summary
  const assistants = useAnswer(api, fixed.assistants, questions.assistants, round, asIs)
  const users = useAnswer(api, fixed.users, questions.users, round, asIs)
  const events = useAnswer(api, fixed.events, questions.events, round, asIs)
  const loading = [summary, trend, assistants, users, events].some((answer) => answer.loading)
  const shown = summary.stale ? undefined : summary.value

  useEffect(() => {
    document.title = `${[state.assistant, state.user, rangeName(state)].filter(Boolean).join(', ')} – AGNT Analytics`
  }, [writeState(state)])

  const { org } = claimsOf(token)
  return (
    <>
      <a class="skip" href="#figures" onClick={skip}>
        Skip to the figures
      </a>
      <header class="top">
        <h1>
          <Logo /> AGNT Analytics
        </h1>
        {typeof org === 'string' && <span class="org">{org}</span>}
        <div class="tools">
          <Freshness answer={summary} timezone={state.timezone} loading={loading} />
          <button type="button" class="toggle-live" aria-pressed={live} onClick={() => setLive(!live)}>
            <i class="dot" /> Live
          </button>
          <button type="button" class="square" aria-label="Refresh" title="Refresh" onClick={refresh}>
            <Refresh />
          </button>
          <button
            type="button"
            class="square"
            aria-label={theme === 'dark' ? 'Use the light theme' : 'Use the dark theme'}
            title={theme === 'dark' ? 'Light theme' : 'Dark theme'}
            onClick={toggleTheme}
          >
            {theme === 'dark' ? <Sun /> : <Moon />}
          </button>
          <button type="button" onClick={() => onSignOut()}>
            Sign out
          </button>
        </div>
      </header>
      <Controls navigation={navigation} assistants={assistants.value} users={users.value} />
      <main id="figures" tabIndex={-1}>
        <Heading navigation={navigation} summary={shown} />
        <section aria-label="Summary" aria-busy={summary.loading} class="summary">
          <SummaryCards answer={summary} timezone={state.timezone} />
        </section>
        <Trends answer={trend} navigation={navigation} theme={theme} />
        <div class="lists">
          <Assistants answer={assistants} span={shown} navigation={navigation} />
          <TopUsers answer={users} navigation={navigation} />
        </div>
        <Events answer={events} navigation={navigation} />
      </main>
      <Announcer state={state} summary={shown} />
    </>
  )
}

const asIs = <T,>(answer: T): T => answer

/** Stands for the moving end where questions are compared. */
const FIXED_END = '2000-01-01T00:00:00Z'

/** Looks for what is new every LIVE_MS: not while something is under way, nobody looks, or the service asked for a pause. */
function useLive(live: boolean, api: Api, refresh: () => void): void {
  // With the layout, not after the next frame: once the button says that nothing is looked for, nothing is.
  useLayoutEffect(() => {
    if (!live) return
    let last = Date.now()
    const look = () => {
      if (document.hidden || api.pending > 0 || Date.now() < api.notBefore || Date.now() - last < LIVE_MS - 500) return
      last = Date.now()
      refresh()
    }
    const timer = setInterval(look, LIVE_MS)
    document.addEventListener('visibilitychange', look)
    return () => {
      clearInterval(timer)
      document.removeEventListener('visibilitychange', look)
    }
  }, [live, api])
}

/** A link to a fragment would leave the state behind. */
function skip(event: Event): void {
  event.preventDefault()
  document.getElementById('figures')?.focus()
}

function Freshness({ answer, timezone, loading }: { answer: Answer<unknown>; timezone: string; loading: boolean }) {
  return (
    <span class="freshness">
      {loading ? (
        'Updating…'
      ) : answer.at > 0 ? (
        <>
          <span class="freshness-label">Updated </span>
          {formatTime(answer.at, timezone)}
        </>
      ) : (
        'Not loaded'
      )}
    </span>
  )
}

function rangeName({ range, from, to }: State): string {
  if (range === 'custom') return from === to ? formatDay(from) : `${formatDay(from)} to ${formatDay(to)}`
  return { '24h': 'last 24 hours', '7d': 'last 7 days', '30d': 'last 30 days', '90d': 'last 90 days' }[range]
}

/** What is shown, in words, with a way out of each filter. */
function Heading({ navigation, summary }: { navigation: Navigation; summary: Summary | undefined }) {
  const { state } = navigation
  const name = rangeName(state)
  return (
    <div class="heading">
      <h2>{name[0]?.toUpperCase() + name.slice(1)}</h2>
      {state.assistant && <Filter navigation={navigation} name="assistant" value={state.assistant} />}
      {state.user && <Filter navigation={navigation} name="user" value={state.user} />}
      {summary && (
        <p class="note">
          {formatShort(summary.startDate, state.timezone)} to {formatShort(summary.endDate, state.timezone)}, compared with as
          long before
        </p>
      )}
    </div>
  )
}

const Filter = ({ navigation, name, value }: { navigation: Navigation; name: 'assistant' | 'user'; value: string }) => (
  <span class="filter">
    <span class="filter-name">{name}</span> <span class="filter-value">{value}</span>
    <StateLink navigation={navigation} change={{ [name]: '' }} label={`Remove the filter by ${name}`}>
      <Cross />
    </StateLink>
  </span>
)

function SummaryCards({ answer, timezone }: { answer: Answer<Summary>; timezone: string }) {
  const { value: summary, stale, loading } = answer
  const nothing = summary && summary.metrics.total === 0 && summary.previous.total === 0
  return (
    <>
      <Failure answer={answer} timezone={timezone} />
      {nothing && !stale && (
        <p class="card notice-empty">
          <strong>No events in this range or the one before.</strong> Choose other dates or filters; events arrive through{' '}
          <code>POST /analytics/events</code>.
        </p>
      )}
      {summary ? (
        <div class={stale ? 'content stale' : 'content'}>
          <Cards summary={summary} />
        </div>
      ) : (
        loading && (
          <div class="cards">
            {Array.from({ length: 6 }, (_, at) => (
              <div key={at} class="card figure">
                <Skeleton lines={3} />
              </div>
            ))}
          </div>
        )
      )}
    </>
  )
}

/** Tells those who do not see the page when what was asked for has arrived; the live updates would only interrupt. */
function Announcer({ state, summary }: { state: State; summary: Summary | undefined }) {
  const [text, setText] = useState('')
  const question = writeState({ ...state, type: '', cursor: '' })
  const told = useRef('')
  useEffect(() => {
    if (!summary || told.current === question) return
    told.current = question
    const { metrics } = summary
    const messages = formatCount(metrics.incomingMessages + metrics.outgoingMessages)
    const scope = [state.assistant, state.user].filter(Boolean).join(', ')
    setText(
      `${rangeName(state)}${scope && `, ${scope}`}: ${messages} messages, completion rate ${formatRate(metrics.completionRate)}.`,
    )
  }, [summary, question])
  return (
    <p class="hidden" role="status">
      {text}
    </p>
  )
}
