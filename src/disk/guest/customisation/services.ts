import type { FileTree } from '../filesystems/file-tree.ts'

/** Something that runs without being asked. */
export interface EnabledService {
  /** `ssh.service`, `apt-daily.timer`; of other inits the name of its script. */
  readonly unit: string
  readonly init: 'systemd' | 'sysvinit' | 'openrc'
  /** What starts it: `multi-user.target`, `rc3`, `default`. */
  readonly by: string
}

const folders: readonly string[] = ['/etc/systemd/system', '/usr/lib/systemd/system']
const UNIT = /\.(service|socket|timer|path|mount)$/
const MAX_SERVICES = 10_000

/**
 * What is enabled, each once, in the order of names. Units that are masked, or that the distribution starts whatever is enabled (those in
 * /usr/lib), are left out, as `systemctl list-unit-files --state=enabled` does. Sources: systemd.unit(5), "Unit File Load Path"; LSB run levels; OpenRC.
 */
export async function readServices(tree: FileTree): Promise<readonly EnabledService[]> {
  const found = new Map<string, EnabledService>()
  const add = (service: EnabledService) => {
    const key = `${service.init} ${service.unit}`
    if (!found.has(key) && found.size < MAX_SERVICES) found.set(key, service)
  }
  for await (const target of tree.list('/etc/systemd/system')) {
    const by = /^(.*)\.(wants|requires|upholds)$/.exec(target.name)?.[1]
    if (by === undefined) continue
    for await (const { name } of tree.list(`/etc/systemd/system/${target.name}`)) {
      if (UNIT.test(name) && (await isLoadable(tree, name))) add({ unit: name, init: 'systemd', by })
    }
  }
  for (const level of ['rc2.d', 'rc3.d', 'rc5.d']) {
    for (const folder of ['/etc', '/etc/rc.d']) {
      for await (const { name } of tree.list(`${folder}/${level}`)) {
        const unit = /^S\d\d(.+)$/.exec(name)?.[1]
        if (unit !== undefined && !(await hasUnit(tree, unit))) add({ unit, init: 'sysvinit', by: level.slice(0, 3) })
      }
    }
  }
  for await (const runlevel of tree.list('/etc/runlevels')) {
    for await (const { name } of tree.list(`/etc/runlevels/${runlevel.name}`))
      add({ unit: name, init: 'openrc', by: runlevel.name })
  }
  return [...found.values()].sort((a, b) => (a.unit < b.unit ? -1 : 1))
}

/** The script of what has a unit is not run. */
const hasUnit = async (tree: FileTree, script: string): Promise<boolean> =>
  (await unitAt(tree, `${script}.service`)) !== undefined

async function unitAt(tree: FileTree, name: string) {
  for (const folder of folders) {
    const found = await tree.find(`${folder}/${name}`)
    if (found) return found
  }
  return undefined
}

/** An instance is loaded from its template; what is masked is a link to /dev/null. */
async function isLoadable(tree: FileTree, name: string): Promise<boolean> {
  const template = name.replace(/@[^.]*\./, '@.')
  const mask = await tree.find(`${folders[0]}/${name}`, false)
  if (mask?.node.kind === 'symlink' && (await mask.fileSystem.readLink(mask.node)) === '/dev/null') return false
  return (await unitAt(tree, name)) !== undefined || (await unitAt(tree, template)) !== undefined
}
