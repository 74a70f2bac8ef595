/** A chart of days: stacked bars or a line, drawn by uPlot; the table below it says the same in words. */
import { useEffect, useMemo, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { StateLink } from './links.tsx'
import { formatDay, formatFullDay, formatTick } from './format.ts'
import { isPartial, type Day } from './questions.ts'
import type { Navigation } from './navigation.ts'
import type { Theme } from './theme.ts'

export interface Series {
  name: string
  /** A custom property of styles.css, without its dashes. */
  color: string
  value(day: Day): number | null
}

interface ChartProps {
  days: readonly Day[]
  kind: 'bars' | 'line'
  /** From the bottom of the stack; one for a line. */
  series: readonly Series[]
  format(value: number | null): string
  tick?(value: number): string
  /** What the chart shows, for those who do not see it. */
  summary: string
  caption: string
  theme: Theme
  navigation: Navigation
}

const HEIGHT = 196
const FAINT = '66'

export function Chart({ days, kind, series, format, tick = formatTick, summary, caption, theme, navigation }: ChartProps) {
  const root = useRef<HTMLDivElement>(null)
  const tip = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(undefined)
  // What the plot draws with: it asks for it at each redraw.
  const shown = useRef({ days, series, format, tick })
  shown.current = { days, series, format, tick }
  const data = useMemo(() => dataOf(days, series), [days, series])

  useEffect(() => {
    const element = root.current as HTMLDivElement
    const made = new uPlot(optionsOf(kind, series, shown, element.clientWidth, tip), data, element)
    plot.current = made
    const resized = new ResizeObserver(() => {
      const { clientWidth: width } = element
      if (width > 0 && width !== made.width) made.setSize({ width, height: HEIGHT })
    })
    resized.observe(element)
    return () => {
      resized.disconnect()
      made.destroy()
    }
  }, [kind])
  useEffect(() => {
    if (plot.current?.data !== data) plot.current?.setData(data)
  }, [data])
  const drawn = useRef(theme)
  useEffect(() => {
    if (drawn.current !== theme) plot.current?.redraw(true)
    drawn.current = theme
  }, [theme])

  const now = Date.now()
  const somePartial = kind === 'bars' && days.some((day) => isPartial(day, now))
  return (
    <>
      <ul class="legend" aria-hidden="true">
        {series.map(({ name, color }) => (
          <li key={name}>
            <i class={`swatch ${color}`} /> {name}
          </li>
        ))}
        {somePartial && (
          <li>
            <i class="swatch partial" /> part of a day
          </li>
        )}
      </ul>
      <div class="chart">
        <div ref={root} role="img" aria-label={summary} />
        <div ref={tip} class="tip" aria-hidden="true" hidden />
      </div>
      <details class="figures">
        <summary>
          Figures<span class="hidden"> of the chart: {caption}</span>
        </summary>
        <div class="scroll" role="region" aria-label={caption} tabIndex={0}>
          <table>
            <caption class="hidden">{caption}</caption>
            <thead>
              <tr>
                <th scope="col">Day</th>
                {series.map(({ name }) => (
                  <th key={name} scope="col" class="number">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {days.toReversed().map((day) => (
                <tr key={day.periodKey}>
                  <th scope="row">
                    <StateLink navigation={navigation} change={{ range: 'custom', from: day.periodKey, to: day.periodKey }}>
                      {formatFullDay(day.periodKey)}
                    </StateLink>
                    {isPartial(day, now) && <span class="note"> in part</span>}
                  </th>
                  {series.map(({ name, value }) => (
                    <td key={name} class="number">
                      {format(value(day))}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </>
  )
}

/** Days by their position: what is on the axis are calendar days, whatever their lengths. Bars are drawn from the top. */
function dataOf(days: readonly Day[], series: readonly Series[]): uPlot.AlignedData {
  const layers = series.map((_, level) =>
    days.map((day) => {
      const values = series.slice(0, level + 1).map(({ value }) => value(day))
      return values.includes(null) ? null : values.reduce<number>((sum, value) => sum + (value as number), 0)
    }),
  )
  return [days.map((_, at) => at), ...layers.reverse()]
}

const colorOf = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()

interface Shown {
  days: readonly Day[]
  series: readonly Series[]
  format(value: number | null): string
  tick(value: number): string
}

function optionsOf(
  kind: ChartProps['kind'],
  series: readonly Series[],
  shown: { current: Shown },
  width: number,
  tip: { current: HTMLDivElement | null },
): uPlot.Options {
  const font = `11px ${getComputedStyle(document.body).fontFamily}`
  const axis = { font, stroke: () => colorOf('muted'), ticks: { show: false } }
  const grid = { stroke: () => colorOf('grid'), width: 1 }
  return {
    width,
    height: HEIGHT,
    padding: [10, 8, 0, 0],
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: false, y: false },
      points: kind === 'line' ? { size: 7 } : { show: false },
    },
    scales: {
      x: { time: false, range: (u) => [-0.5, u.data[0].length - 0.5] },
      y: { range: (_, min, max) => (kind === 'line' ? rateRange(min, max) : [0, Math.max(max ?? 0, 1e-9) * 1.08]) },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 26,
        space: 52,
        incrs: [1, 2, 3, 7, 14, 28, 56, 112],
        values: (_, at) =>
          at.map((index) => {
            const day = shown.current.days[index]
            return day ? formatDay(day.periodKey) : ''
          }),
      },
      { ...axis, grid, size: 48, space: 36, values: (_, values) => values.map((value) => shown.current.tick(value)) },
    ],
    series: [
      {},
      ...series.toReversed().map(({ color }): uPlot.Series => {
        if (kind === 'line') {
          return {
            stroke: () => colorOf(color),
            width: 2,
            fill: () => `${colorOf(color)}14`,
            fillTo: (u: uPlot) => u.scales['y']?.min ?? 0,
            points: { show: (u) => u.data[0].length <= 31, size: 5, fill: () => colorOf(color), stroke: () => colorOf(color) },
          } as uPlot.Series
        }
        const paint = () => shown.current.days.map((day) => colorOf(color) + (isPartial(day, Date.now()) ? FAINT : ''))
        const bars = uPlot.paths.bars as uPlot.Series.BarsPathBuilderFactory
        return {
          fill: () => colorOf(color),
          width: 0,
          points: { show: false },
          paths: bars({ size: [0.72, 40], radius: [0.12, 0], disp: { fill: { unit: 3, values: paint } } }),
        }
      }),
    ],
    hooks: {
      setCursor: [(u) => point(u, shown.current, tip.current as HTMLDivElement)],
    },
  }
}

/** A rate is shown from a little below its lowest value, in tenths, up to all. */
function rateRange(min: number | null, max: number | null): [number, number] {
  const bottom = Math.max(0, Math.floor(((min ?? 0) - 0.02) * 10) / 10)
  return [bottom, Math.max(1, max ?? 1) + (1 - bottom) * 0.04]
}

const line = (tag: string, text: string) => Object.assign(document.createElement(tag), { textContent: text })

/** Fills and places the box beside the pointer. */
function point(u: uPlot, { days, series, format }: Shown, tip: HTMLDivElement): void {
  const at = u.cursor.idx
  const day = at === null || at === undefined ? undefined : days[at]
  if (!day || u.cursor.left === undefined || u.cursor.left < 0) {
    tip.hidden = true
    return
  }
  tip.replaceChildren(
    line('strong', formatFullDay(day.periodKey) + (isPartial(day, Date.now()) ? ', in part' : '')),
    ...series.map(({ name, value }) => line('span', `${name}: ${format(value(day))}`)),
  )
  tip.hidden = false
  const x = u.valToPos(at as number, 'x') + u.bbox.left / devicePixelRatio
  const space = u.width - tip.offsetWidth - 4
  tip.style.left = `${Math.max(0, Math.min(x + 10 > space ? x - tip.offsetWidth - 10 : x + 10, space))}px`
}
