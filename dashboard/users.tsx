/** The most active users of the range. */
import type { TopUser } from '../src/client.ts'
import { Bar } from './assistants.tsx'
import { formatAgo, formatCost, formatCount, formatInstant } from './format.ts'
import { StateLink } from './links.tsx'
import { Panel } from './panel.tsx'
import type { Navigation } from './navigation.ts'
import type { Answer } from './use-answer.ts'

export function TopUsers({ answer, navigation }: { answer: Answer<TopUser[]>; navigation: Navigation }) {
  const { state } = navigation
  return (
    <Panel
      id="users"
      title="Top users"
      note={state.assistant ? `By events, with ${state.assistant}` : 'By events'}
      actions={
        state.user && (
          <StateLink navigation={navigation} change={{ user: '' }}>
            Show all
          </StateLink>
        )
      }
      answer={answer}
      timezone={state.timezone}
      lines={9}
      empty="Nobody was active in this range."
    >
      {(rows) => {
        if (rows.length === 0) return null
        const largest = Math.max(...rows.map(({ total }) => total))
        const now = Date.now()
        return (
          <div class="scroll" role="region" aria-label="Table of top users" tabIndex={0}>
            <table class="users">
              <caption class="hidden">The most active users of the range</caption>
              <thead>
                <tr>
                  <th scope="col">User</th>
                  <th scope="col" class="number">
                    Events
                  </th>
                  <th scope="col" class="number cost">
                    Cost
                  </th>
                  <th scope="col" class="number lastActiveAt">
                    Last active
                  </th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <tr key={row.user} aria-current={row.user === state.user ? 'true' : undefined}>
                    <th scope="row">
                      <StateLink navigation={navigation} change={{ user: row.user }} class="name">
                        {row.user}
                      </StateLink>
                      <Bar part={row.total / largest} />
                    </th>
                    <td class="number">{formatCount(row.total)}</td>
                    <td class="number cost">{formatCost(row.cost)}</td>
                    <td class="number lastActiveAt">
                      <time dateTime={row.lastActiveAt} title={formatInstant(row.lastActiveAt, state.timezone)}>
                        {formatAgo(row.lastActiveAt, now)}
                      </time>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )
      }}
    </Panel>
  )
}
