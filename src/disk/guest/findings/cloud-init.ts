import type { NewCheck } from './look.ts'

const seed = /^\/(?:var\/lib\/cloud\/seed|usr\/local\/cloud-init)\/./
const settings = /^\/etc\/cloud\/cloud\.cfg(?:\.d\/[^/]+\.cfg)?$/
const userData = /\/(?:user-data|vendor-data|user-data\.txt|vendor-data\.txt|cloud-config\.txt)(?:\.i)?$/
const instance = /^\/var\/lib\/cloud\/instances?\/([^/]{1,255})\//
/** A line of a cloud-config that sets a password. Source: cloud-init's modules "Set Passwords" and "Users and Groups". */
const PASSWORD =
  /^[ \t-]*(?:password|passwd|plain_text_passwd|hashed_passwd):[ \t]*["']?[^ \t"'#*!]|[{,][ \t]*(?:password|passwd|plain_text_passwd|hashed_passwd):[ \t]*["']?[^ \t"'#*!]/
const CHPASSWD = /^[ \t-]*chpasswd:/
const NAME_AND_PASSWORD = /^[ \t-]+[a-z_][a-z0-9_-]{0,31}:[^ \t]/
const MAX_LINE = 4096

/** What cloud-init kept of the instance that the image was made in, and what it would do in others. */
export const cloudInit: NewCheck = (look) => {
  const instances = new Map<string, number>()
  return {
    async file(file) {
      const id = instance.exec(file.path)?.[1]
      if (id !== undefined) instances.set(id, (instances.get(id) ?? 0) + 1)
      const isSeed = seed.test(file.path)
      if (isSeed && file.bytes > 0) look.add('cloud-init-seed', file.path, 'a seed of cloud-init')
      if (!settings.test(file.path) && !(isSeed || (id !== undefined && userData.test(file.path)))) return
      if (setsPassword((await file.text()) ?? '')) look.add('cloud-init-password', file.path, 'it sets a password')
    },
    async end() {
      for (const [id, files] of instances)
        look.add('cloud-init-state', `/var/lib/cloud/instances/${id}`, `the instance ${id}, ${files} files`)
      if (instances.size > 0) return
      for (const path of ['/var/lib/cloud/data/previous-instance-id', '/var/lib/cloud/data/instance-id']) {
        const found = await look.find(path)
        if (found?.node.kind === 'file' && found.node.bytes > 0)
          return look.add('cloud-init-state', path, 'the id of an instance')
      }
    },
  }
}

function setsPassword(text: string): boolean {
  const lines = text.split('\n').map((line) => line.slice(0, MAX_LINE))
  if (lines.some((line) => PASSWORD.test(line))) return true
  return lines.some((line) => CHPASSWD.test(line)) && lines.some((line) => NAME_AND_PASSWORD.test(line))
}
