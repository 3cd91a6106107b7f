import { ServiceError } from '../../../base/errors.ts'
import {
  createProject,
  deleteProject,
  getProject,
  listProjects,
  type ProjectFields,
  updateProject,
} from '../../../identity/projects.ts'
import { DOMAIN, type ProjectRecord } from '../../../identity/records.ts'
import { type Fields, rules } from './fields.ts'
import { collection, filtered, showDomain, shownList, showProject } from './presentation.ts'
import { invalid, notFound } from './refusals.ts'
import { type Call, created, noContent, ok, type Query, type Route } from './route.ts'
import { changesOf, requireOurDomain } from './user-routes.ts'

const MAX_TAGS = 80

const oneDomain = (): never => {
  throw new ServiceError('denied', `there is one domain here, "${DOMAIN.id}", and it stays as it is`)
}

export const projectRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/projects',
    async handle({ ports, caller, query, base }) {
      const found = await listProjects(ports, caller, query.text('name'))
      const items = query.flag('is_domain') ? [] : found.items.filter(tagTest(query)) // projects that act as domains: none
      const filter = { query, fields: ['name', 'enabled', 'domain_id', 'parent_id'] }
      return ok(shownList('projects', { ...found, items }, (project) => showProject(project, base), filter, `${base}/projects`))
    },
  },
  {
    method: 'POST',
    path: '/projects',
    verb: 'project:create',
    async handle({ ports, caller, body, base }) {
      const project = body.object('project')
      requireFlat(project)
      const made = await createProject(ports, caller, { ...readProject(project), name: project.text('name', rules.projectName) })
      return created({ project: showProject(made, base) })
    },
  },
  {
    method: 'GET',
    path: '/projects/:projectId',
    async handle({ ports, caller, params, base }) {
      return ok({ project: showProject(await getProject(ports, caller, params.projectId ?? ''), base) })
    },
  },
  {
    method: 'PATCH',
    path: '/projects/:projectId',
    verb: 'project:update',
    async handle({ ports, caller, params, body, base }) {
      const project = changesOf(body.object('project'), params.projectId)
      requireFlat(project)
      const changed = await updateProject(ports, caller, params.projectId ?? '', readProject(project))
      return ok({ project: showProject(changed, base) })
    },
  },
  {
    method: 'DELETE',
    path: '/projects/:projectId',
    async handle({ ports, caller, params }) {
      await deleteProject(ports, caller, params.projectId ?? '')
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/projects/:projectId/tags',
    async handle({ ports, caller, params, base }) {
      const { tags } = await getProject(ports, caller, params.projectId ?? '')
      return ok(tagList(tags, `${base}/projects/${params.projectId}/tags`))
    },
  },
  {
    method: 'PUT',
    path: '/projects/:projectId/tags',
    verb: 'project:update',
    async handle(call) {
      const tags = call.body.texts('tags', MAX_TAGS, rules.tag)
      if (!tags) throw invalid('tags is missing: it must be a list of strings')
      const { tags: kept } = await setTags(call, () => tags)
      return ok(tagList(kept, `${call.base}/projects/${call.params.projectId}/tags`))
    },
  },
  {
    method: 'DELETE',
    path: '/projects/:projectId/tags',
    verb: 'project:update',
    async handle(call) {
      await setTags(call, () => [])
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/projects/:projectId/tags/:tag',
    async handle({ ports, caller, params }) {
      const { tags } = await getProject(ports, caller, params.projectId ?? '')
      if (!tags.includes(params.tag ?? '')) throw notFound('tag', params.tag)
      return noContent
    },
  },
  {
    method: 'PUT',
    path: '/projects/:projectId/tags/:tag',
    verb: 'project:update',
    async handle(call) {
      const tag = call.params.tag ?? ''
      if (!rules.tag.form.pattern.test(tag) || tag.length > rules.tag.most) throw invalid(`a tag ${rules.tag.form.says}`)
      await setTags(call, (tags) => [...tags, tag])
      return {
        status: 201,
        headers: { location: `${call.base}/projects/${call.params.projectId}/tags/${encodeURIComponent(tag)}` },
      }
    },
  },
  {
    method: 'DELETE',
    path: '/projects/:projectId/tags/:tag',
    verb: 'project:update',
    async handle(call) {
      await setTags(call, (tags) => {
        if (!tags.includes(call.params.tag ?? '')) throw notFound('tag', call.params.tag)
        return tags.filter((tag) => tag !== call.params.tag)
      })
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/domains',
    verb: 'domain:list',
    handle: ({ base, query }) =>
      ok(collection('domains', filtered([showDomain(base)], query, ['name', 'enabled', 'id']), `${base}/domains`)),
  },
  {
    method: 'GET',
    path: '/domains/:domainId',
    verb: 'domain:get',
    handle: ({ base, params }) => {
      if (params.domainId !== DOMAIN.id) throw notFound('domain', params.domainId)
      return ok({ domain: showDomain(base) })
    },
  },
  { method: 'POST', path: '/domains', verb: 'domain:change', handle: oneDomain },
  { method: 'PATCH', path: '/domains/:domainId', verb: 'domain:change', handle: oneDomain },
  { method: 'DELETE', path: '/domains/:domainId', verb: 'domain:change', handle: oneDomain },
]

const known: ReadonlySet<string> = new Set([
  ...['id', 'name', 'domain_id', 'enabled', 'description', 'parent_id', 'is_domain', 'tags', 'options', 'links'],
])

function readProject(project: Fields): ProjectFields {
  const name = project.optionalText('name', rules.projectName)
  const enabled = project.flag('enabled')
  const description = project.nullableText('description', rules.free)
  const tags = project.texts('tags', MAX_TAGS, rules.tag)
  project.optionalObject('options')
  return {
    ...(name === undefined ? {} : { name }),
    ...(enabled === undefined ? {} : { enabled }),
    ...(description === undefined ? {} : { description: description ?? '' }),
    ...(tags === undefined ? {} : { tags }),
    extra: project.rest(known),
  }
}

/** Projects lie side by side in the one domain. */
function requireFlat(project: Fields): void {
  requireOurDomain(project)
  const parent = project.nullableText('parent_id', rules.id)
  if (parent != null && parent !== DOMAIN.id)
    throw invalid(`parent_id can only be "${DOMAIN.id}": projects have no projects within`)
  if (project.flag('is_domain') === true) oneDomain()
}

const tagList = (tags: readonly string[], self: string) => ({ tags, links: { self } })

async function setTags(
  { ports, caller, params }: Call,
  change: (tags: readonly string[]) => readonly string[],
): Promise<ProjectRecord> {
  const project = await getProject(ports, caller, params.projectId ?? '')
  const tags = change(project.tags)
  if (tags.length > MAX_TAGS) throw invalid(`a project may have at most ${MAX_TAGS} tags`)
  return updateProject(ports, caller, project.id, { tags })
}

/** `tags` all of them, `tags-any` one of them; `not-tags`, `not-tags-any` the contrary. */
function tagTest(query: Query): (project: ProjectRecord) => boolean {
  const wanted = (name: string) => query.text(name)?.split(',')
  const [every, any, notEvery, notAny] = [wanted('tags'), wanted('tags-any'), wanted('not-tags'), wanted('not-tags-any')]
  return ({ tags }) => {
    const has = (tag: string) => tags.includes(tag)
    return (!every || every.every(has)) && (!any || any.some(has)) && !notEvery?.every(has) && !notAny?.some(has)
  }
}
