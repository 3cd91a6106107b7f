import { type Route, route } from './route.ts'
import { Status } from './schemas.ts'
import type { ImprintServices } from './services.ts'

export const statusRoutes = (services: ImprintServices): readonly Route[] => [
  route({
    method: 'GET',
    path: '/status',
    summary: 'Whether the service is well',
    who: 'anyone with a token; the store is shown to administrators',
    reply: { status: 200, body: Status, description: 'version, uptime, the running job' },
    errors: ['unauthenticated'],
    async handle({ caller }) {
      return {
        version: services.version,
        uptimeSeconds: Math.floor((services.now() - services.startedAt) / 1000),
        job: services.jobs.running,
        ...(caller.isAdmin ? { store: await services.images.chunks.stats() } : {}),
      }
    },
  }),
]
