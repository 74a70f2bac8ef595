/** The HTTP face: the list of routes, and what is true of every request. */
import { Hono } from 'hono'
import type { Endpoint } from '../analytics/endpoint.ts'
import { ENDPOINTS } from '../analytics/endpoints/index.ts'
import type { Verifier } from '../auth/verifier.ts'
import type { Removals } from '../maintenance/erasure.ts'
import type { Backups } from '../maintenance/backup.ts'
import { observeRequests, type RequestObserver } from '../observe/requests.ts'
import { answerQuery, type QueryDeps } from './answer-query.ts'
import type { Env } from './environment.ts'
import { errorResponse, notFound } from './error-response.ts'
import { allowOrigins, mcp } from './mcp/index.ts'
import { authenticateWith, countRequest, crossOrigin, dataHeaders, onlyMethods } from './middleware.ts'
import { reference } from './reference/routes.ts'
import { dashboard } from './routes/dashboard.ts'
import { deleteUser } from './routes/delete-user.ts'
import { live, ready, type ReadyDeps } from './routes/health.ts'
import { allowScraper, metrics, type MetricsDeps } from './routes/metrics.ts'
import { postBackup, postReconcile, type ReconcileDeps } from './routes/operations.ts'
import { postEvents, type Ingestion } from './routes/post-events.ts'

export interface AppDeps extends QueryDeps, ReadyDeps, ReconcileDeps, MetricsDeps {
  readonly verifier: Verifier
  readonly ingestion: Ingestion
  readonly removals: Removals
  readonly backups: Backups
  /** Origins whose pages may call the service; none by default. */
  readonly corsOrigins: readonly string[]
  readonly observer: RequestObserver
}

/** Methods of a GET endpoint's path beside GET and HEAD; `top` is also the id of a user that DELETE may name. */
const OTHER_METHODS: Readonly<Record<string, string>> = { '/analytics/events': 'POST', '/analytics/users/top': 'DELETE' }

export function createApp(deps: AppDeps) {
  const { corsOrigins, limits } = deps
  const authenticate = authenticateWith(deps.verifier)
  const app = new Hono<Env>()

  app.use(observeRequests(deps.observer))
  // Before `dataHeaders`, which let no page load anything: pages have headers of their own.
  app.route('/', dashboard())
  app.route('/', reference())
  app.use(dataHeaders)
  if (corsOrigins.length > 0) app.use(crossOrigin(corsOrigins))

  for (const endpoint of Object.values(ENDPOINTS) as unknown as Endpoint[]) {
    app.get(endpoint.path, authenticate('analytics:read'), countRequest(limits), answerQuery(endpoint, deps))
  }
  app.post('/analytics/events', authenticate('analytics:write'), countRequest(limits), postEvents(deps.ingestion))
  app.delete('/analytics/users/:user', authenticate('analytics:admin'), countRequest(limits), deleteUser(deps))

  app.use('/mcp', allowOrigins(corsOrigins))
  app.post(
    '/mcp',
    authenticate('analytics:read'),
    countRequest(limits),
    mcp((url, init) => app.request(url, init)),
  )

  app.get('/health/live', live)
  app.get('/health/ready', ready(deps))
  app.get('/metrics', allowScraper(deps, authenticate('analytics:operate')), metrics(deps))
  app.post('/operations/reconcile', authenticate('analytics:operate'), postReconcile(deps))
  app.post('/operations/backup', authenticate('analytics:operate'), postBackup(deps))

  for (const path of Object.keys(ENDPOINTS)) {
    app.all(path, onlyMethods('GET', 'HEAD', ...(OTHER_METHODS[path] ? [OTHER_METHODS[path]] : [])))
  }
  app.all('/analytics/users/:user', onlyMethods('DELETE'))
  app.all('/mcp', onlyMethods('POST'))
  app.notFound((c) => errorResponse(c, notFound()))
  app.onError((error, c) => errorResponse(c, error))
  return app
}
