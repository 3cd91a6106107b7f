import { type Static, type TSchema, Type } from '@sinclair/typebox'
import type { Api } from '../api.ts'
import { bootRecordRoutes } from './boot-record-routes.ts'
import { deploymentRoutes } from './deployment-routes.ts'
import { exportFileRoutes } from './export-file-routes.ts'
import { exportRoutes } from './export-routes.ts'
import { imageRoutes } from './image-routes.ts'
import { inspectionRoutes } from './inspection-routes.ts'
import { instanceRoutes } from './instance-routes.ts'
import { openApiOf } from './openapi.ts'
import { quotaRoutes } from './quota-routes.ts'
import { type Route, route } from './route.ts'
import type { ErrorBody } from './schemas.ts'
import type { ImprintServices } from './services.ts'
import { statusRoutes } from './status-routes.ts'
import { storeRoutes } from './store-routes.ts'
import { uploadRoutes } from './upload-routes.ts'
import { validatorOf } from './validator.ts'

export type { ImprintServices } from './services.ts'

/** `/v1`: what no cloud API has. docs/api-v1.md describes it; `/v1/openapi.json` is made from these routes. */
export const imprintApi = (services: ImprintServices): Api => ({
  name: 'imprint',
  prefix: '/v1',
  register(app) {
    // handed through as a stream: the handlers read it with limits of their own
    app.addContentTypeParser('application/octet-stream', async (_: unknown, body: unknown) => body)
    app.setValidatorCompiler<TSchema>(({ schema, httpPart }) => validatorOf(schema, httpPart ?? 'request'))
    for (const one of imprintRoutes(services)) one.mount(app)
  },
  renderError({ code, message, details }) {
    const body: Static<typeof ErrorBody> = { code, message, details }
    return { contentType: 'application/json', body: JSON.stringify(body) }
  },
})

export function imprintRoutes(services: ImprintServices): readonly Route[] {
  const routes = [
    ...statusRoutes(services),
    ...uploadRoutes(services),
    ...imageRoutes(services),
    ...inspectionRoutes(services),
    ...exportRoutes(services),
    ...exportFileRoutes(services),
    ...bootRecordRoutes(services),
    ...instanceRoutes(services),
    ...deploymentRoutes(services),
    ...quotaRoutes(services),
    ...storeRoutes(services),
  ]
  const document: Route = route({
    method: 'GET',
    path: '/openapi.json',
    summary: 'This description',
    who: 'anyone',
    auth: 'none',
    reply: { status: 200, body: Type.Unknown(), description: 'OpenAPI 3.1' },
    errors: [],
    handle: async () => openApiOf([...routes, document], services.version),
  })
  return [...routes, document]
}
