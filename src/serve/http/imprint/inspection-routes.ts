import { Type } from '@sinclair/typebox'
import { inspectImage, listPackages } from '../../../images/inspect/inspections.ts'
import { Inspection, Packages } from './inspection-schemas.ts'
import { type Route, route } from './route.ts'
import { imageId } from './schemas.ts'
import type { ImprintServices } from './services.ts'

const params = Type.Object({ id: imageId })
const who = 'whoever may download the image'
const errors = ['unauthenticated', 'denied', 'not-found', 'conflict', 'unsupported', 'invalid-image', 'too-large'] as const
const page = Type.Object({
  after: Type.Optional(
    Type.Integer({ minimum: 0, default: 0, description: 'how many to leave out, which is `next` of the page before' }),
  ),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 200 })),
})

export const inspectionRoutes = ({ images }: ImprintServices): readonly Route[] => [
  route({
    method: 'GET',
    path: '/images/:id/inspection',
    summary: 'What the disk of an image holds',
    description:
      "Partitions and volumes with what is on them; of each operating system what it is, who can log in, what it starts, where its packages come from, and which configuration was changed. Looked into at the first request, which takes a second or two, and kept by content. All strings are the image's own: show them inert. What could not be read is `null`, and a note says why.",
    who,
    params,
    reply: { status: 200, body: Inspection, description: 'facts' },
    errors,
    async handle({ caller, params }) {
      const { anatomy, inspectedAt } = await inspectImage(images, caller, params.id)
      const systems = anatomy.systems.map(({ software, ...system }) => ({
        ...system,
        software: software && { packages: software.packages.length, failures: software.failures },
      }))
      return { ...anatomy, systems, inspectedAt: new Date(inspectedAt).toISOString() }
    },
  }),
  route({
    method: 'GET',
    path: '/images/:id/packages',
    summary: 'What is installed in an image',
    description:
      'In the order of its package databases. `complete` is false where something could not be read, or no system was found: then an absent package may be there.',
    who,
    params,
    query: page,
    reply: { status: 200, body: Packages, description: 'a page' },
    errors,
    handle: ({ caller, params, query: { after = 0, limit = 200 } }) => listPackages(images, caller, params.id, { after, limit }),
  }),
]
