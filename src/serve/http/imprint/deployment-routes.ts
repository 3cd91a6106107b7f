import { type Static, Type } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import { DISK_CHOICE } from '../../../base/disk-choice.ts'
import {
  allowDeployment,
  DEPLOYMENT_SECONDS,
  forgetDeployment,
  imageOfDeployment,
  listDeployments,
  orderOf,
  reportDeployment,
  type StoredDeployment,
  showDeployment,
} from '../../../images/deployments/deployments.ts'
import { fileRoutes } from './export-file-routes.ts'
import { type Route, route } from './route.ts'
import { imageId } from './schemas.ts'
import type { ImprintServices } from './services.ts'

const id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9_-]+$' })
const params = Type.Object({ id })
const machine = Type.Union([Type.String({ pattern: '^[0-9a-f]{2}(:[0-9a-f]{2}){5}$' }), Type.Null()], {
  description: 'MAC, in lower case; null: the first machine that asks',
})
const target = Type.String({
  pattern: DISK_CHOICE,
  description:
    'the disk to write: /dev/sda, serial=…, wwn=…, size=… in GiB, largest, or smallest; refused by the machine where that may be several',
})

const NewDeployment = Type.Object(
  {
    image: imageId,
    machine,
    target,
    seconds: Type.Optional(
      Type.Integer({
        minimum: 60,
        maximum: DEPLOYMENT_SECONDS.most,
        description: 'until it ends by itself; a day where nothing is said',
      }),
    ),
  },
  { additionalProperties: false },
)
const imageFields = { id: imageId, name: Type.Union([Type.String(), Type.Null()]) }
const states = ['waiting', 'writing', 'done', 'failed'] as const
const Deployment = Type.Object({
  id: Type.String(),
  image: Type.Object(imageFields),
  machine,
  target,
  state: Type.Union(states.map((state) => Type.Literal(state))),
  doneBytes: Type.Integer({ minimum: 0 }),
  totalBytes: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  message: Type.Union([Type.String(), Type.Null()], { description: 'what went wrong, in the words of the machine' }),
  projectId: Type.String(),
  createdAt: Type.String({ description: 'ISO 8601' }),
  updatedAt: Type.String({ description: 'ISO 8601' }),
  expiresAt: Type.String({ description: 'ISO 8601' }),
})
const Order = Type.Object({
  image: Type.Object({
    ...imageFields,
    minDiskGb: Type.Integer(),
    minRamMb: Type.Integer(),
    properties: Type.Record(Type.String(), Type.String()),
  }),
  target,
})
const bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Report = Type.Union([
  Type.Object({ state: Type.Literal('writing'), doneBytes: bytes, totalBytes: bytes }, { additionalProperties: false }),
  Type.Object({ state: Type.Literal('done') }, { additionalProperties: false }),
  Type.Object({ state: Type.Literal('failed'), message: Type.String({ maxLength: 4000 }) }, { additionalProperties: false }),
])

const members = 'members of the project that made it, administrators'
const theMachine = 'the machine, by the token that it was given when it started from the network (as X-Auth-Token)'

/** Machines that start from the network and are written with an image: docs/deploy.md. */
export const deploymentRoutes = (services: ImprintServices): readonly Route[] => [
  ...routesOfPeople(services),
  ...routesOfMachines(services),
]

const routesOfPeople = ({ leases }: ImprintServices): readonly Route[] => [
  route({
    method: 'POST',
    path: '/deployments',
    summary: 'Let a machine that starts from the network be written with an image',
    description: 'The image’s disk is lent until the machine has it, or the time is over; the image may be deleted meanwhile.',
    who: 'administrators',
    body: NewDeployment,
    reply: { status: 201, body: Deployment, description: 'it waits for the machine' },
    errors: ['unauthenticated', 'denied', 'not-found', 'conflict', 'unsupported', 'over-quota', 'invalid-request'],
    async handle({ caller, body }): Promise<Static<typeof Deployment>> {
      const { image, ...wish } = body
      return deploymentBody(await allowDeployment(leases, caller, { imageId: image, ...wish }))
    },
  }),
  route({
    method: 'GET',
    path: '/deployments',
    summary: 'The deployments of the project',
    who: 'its members and readers',
    reply: {
      status: 200,
      body: Type.Object({ deployments: Type.Array(Deployment) }),
      description: 'newest first; a week of those that are over',
    },
    errors: ['unauthenticated'],
    handle: async ({ caller }) => ({ deployments: (await listDeployments(leases, caller)).map(deploymentBody) }),
  }),
  route({
    method: 'GET',
    path: '/deployments/:id',
    summary: 'One deployment',
    who: 'members and readers of the project that made it, administrators',
    params,
    reply: { status: 200, body: Deployment, description: 'how it goes' },
    errors: ['unauthenticated', 'not-found'],
    handle: async ({ caller, params }) => deploymentBody(await showDeployment(leases, caller, params.id)),
  }),
  route({
    method: 'DELETE',
    path: '/deployments/:id',
    summary: 'Forget a deployment',
    description: 'A machine that is being written gets no more of the image, and stays unfinished.',
    who: members,
    params,
    reply: { status: 204, description: 'forgotten' },
    errors: ['unauthenticated', 'denied', 'not-found'],
    async handle({ caller, params }) {
      await forgetDeployment(leases, caller, params.id)
    },
  }),
]

const routesOfMachines = (services: ImprintServices): readonly Route[] => [
  route({
    method: 'GET',
    path: '/deployments/:id/order',
    summary: 'What a machine is to do',
    who: theMachine,
    auth: 'own',
    params,
    reply: { status: 200, body: Order, description: 'the image, what it demands, and where to write it' },
    errors: ['unauthenticated'],
    async handle({ params, request }): Promise<Static<typeof Order>> {
      const { body } = await orderOf(services.leases, params.id, tokenOf(request))
      const { minDisk: minDiskGb, minRam: minRamMb, ...image } = body.image
      return { image: { ...image, minDiskGb, minRamMb }, target: body.target }
    },
  }),
  route({
    method: 'POST',
    path: '/deployments/:id/report',
    summary: 'How it goes',
    who: theMachine,
    auth: 'own',
    params,
    body: Report,
    reply: { status: 204, description: 'noted; with `done` and `failed` the token is good no more' },
    errors: ['unauthenticated', 'invalid-request'],
    async handle({ params, body, request }) {
      await reportDeployment(services.leases, params.id, tokenOf(request), body)
    },
  }),
  ...fileRoutes(services, {
    under: '/deployments/:id',
    who: theMachine,
    of: 'a deployment',
    auth: 'own',
    imageOf: ({ params, request }) => imageOfDeployment(services.leases, params.id, tokenOf(request)),
  }),
]

const tokenOf = ({ headers }: FastifyRequest): string => String(headers['x-auth-token'])

function deploymentBody({ key, body }: StoredDeployment): Static<typeof Deployment> {
  const { image, machine, target, state, doneBytes, totalBytes, message, projectId, createdAt, updatedAt, expiresAt } = body
  const at = (ms: number) => new Date(ms).toISOString()
  return {
    id: key,
    image: { id: image.id, name: image.name },
    machine,
    target,
    state,
    doneBytes,
    totalBytes,
    message,
    projectId,
    createdAt: at(createdAt),
    updatedAt: at(updatedAt),
    expiresAt: at(expiresAt),
  }
}
