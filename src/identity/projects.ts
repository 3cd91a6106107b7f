import { ServiceError } from '../base/errors.ts'
import type { DocumentReader, DocumentWriter } from '../store/catalog/catalog.ts'
import type { AuthenticatedCaller } from './identity.ts'
import { authorize } from './policy.ts'
import type { Ports } from './ports.ts'
import { newId, type ProjectRecord } from './records.ts'
import { applicationCredentials, assignments, type Listed, limits, projects, tokens } from './store.ts'
import { mergeExtra } from './users.ts'

export interface ProjectFields {
  readonly name?: string
  readonly enabled?: boolean
  readonly description?: string
  readonly tags?: readonly string[]
  /** Merged into what is there; null removes an attribute. */
  readonly extra?: Readonly<Record<string, unknown>>
}

export async function getProject({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<ProjectRecord> {
  const project = await projects.get(catalog.documents, id)
  authorize(caller, 'project:get', { projectId: project?.id })
  return project ?? absent(id)
}

export async function listProjects(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  name?: string,
): Promise<Listed<ProjectRecord>> {
  authorize(caller, 'project:list')
  if (name === undefined) return projects.list(catalog.documents)
  const found = await projects.byName(catalog.documents, name)
  return { items: found ? [found] : [], truncated: false }
}

/** @throws ServiceError `conflict` where the name is taken */
export async function createProject(
  { catalog, now }: Ports,
  caller: AuthenticatedCaller,
  fields: ProjectFields & { readonly name: string },
): Promise<ProjectRecord> {
  authorize(caller, 'project:create')
  const project: ProjectRecord = {
    id: newId(),
    name: fields.name,
    enabled: fields.enabled ?? true,
    description: fields.description ?? '',
    tags: sortedTags(fields.tags),
    createdAt: now(),
    extra: mergeExtra({}, fields.extra),
  }
  await catalog.write(({ documents }) => putProject(documents, project))
  return project
}

/** Disabling a project ends all tokens for it. */
export function updateProject(
  { catalog }: Ports,
  caller: AuthenticatedCaller,
  id: string,
  fields: ProjectFields,
): Promise<ProjectRecord> {
  authorize(caller, 'project:update')
  return catalog.write(async ({ documents }) => {
    const project = (await projects.get(documents, id)) ?? absent(id)
    const { name = project.name, enabled = project.enabled, description = project.description } = fields
    const tags = fields.tags ? sortedTags(fields.tags) : project.tags
    const changed = { ...project, name, enabled, description, tags, extra: mergeExtra(project.extra, fields.extra) }
    await putProject(documents, changed)
    if (!enabled) await tokens.revokeOfScope(documents, { kind: 'project', projectId: id })
    return changed
  })
}

/** Ends its tokens, and deletes its assignments, limits and application credentials. Its images stay, for an administrator. */
export async function deleteProject({ catalog }: Ports, caller: AuthenticatedCaller, id: string): Promise<void> {
  authorize(caller, 'project:delete')
  await catalog.write(async ({ documents }) => {
    if (!(await projects.get(documents, id))) absent(id)
    const scope = { kind: 'project', projectId: id } as const
    await tokens.revokeOfScope(documents, scope)
    await applicationCredentials.deleteOfProject(documents, id)
    await assignments.deleteOfScope(documents, scope)
    await limits.deleteOfProject(documents, id)
    await projects.delete(documents, id)
  })
}

const sortedTags = (tags: readonly string[] = []): readonly string[] => [...new Set(tags)].sort()

export async function putProject(docs: DocumentReader & DocumentWriter, project: ProjectRecord): Promise<void> {
  const holder = await projects.byName(docs, project.name)
  if (holder && holder.id !== project.id) {
    throw new ServiceError('conflict', `there is a project named "${project.name}" in this domain: choose another name`)
  }
  await projects.put(docs, project)
}

function absent(id: string): never {
  throw new ServiceError('not-found', `could not find project "${id}"`)
}
