import { formatBytes } from '../../../base/units.ts'
import type { NewCheck } from './look.ts'

const answers =
  /^\/(?:(?:auto)?unattend\.xml|windows\/(?:panther\/(?:unattend\/)?|system32\/sysprep\/(?:panther\/)?)[^/]*unattend[^/]*\.xml|programdata\/[^/]+\/[^/]*unattend[^/]*\.xml|program files\/cloudbase solutions\/[^/]+\/conf\/unattend\.xml)$/
const hibernation = /^\/hiberfil\.sys$/
const eventLogs = /^\/windows\/system32\/winevt\/logs\/[^/]+\.evtx$/
/** Written where Sysprep came to its end. */
const SYSPREP_TAG = '/Windows/System32/Sysprep/Sysprep_succeeded.tag'
const KERNEL = '/Windows/System32/ntoskrnl.exe'
const elements: readonly string[] = [
  'password',
  'administratorpassword',
  'adminpassword',
  'unsecurejoinpassword',
  'machinepassword',
]
/** What Setup puts in the place of a password that it has used. */
const DELETED = '*SENSITIVE*DATA*DELETED*'

/** What a Windows holds of the machine that it was made on, by its files alone. */
export const windows: NewCheck = (look) => {
  if (look.family !== 'windows') return {}
  let [logs, logBytes] = [0, 0]
  return {
    async places() {
      if ((await look.find(KERNEL)) && !(await look.find(SYSPREP_TAG)))
        look.add('not-generalised', '/Windows/System32/Sysprep', 'Sysprep did not come to its end here')
    },
    async file(file) {
      const path = file.path.toLowerCase()
      if (hibernation.test(path) && file.bytes > 0) look.add('hibernation', file.path, formatBytes(file.bytes))
      if (eventLogs.test(path)) [logs, logBytes] = [logs + 1, logBytes + file.bytes]
      if (!answers.test(path) || file.bytes === 0) return
      if (hasPassword((await file.text()) ?? '')) look.add('unattend-password', file.path, 'an answer file with a password')
      else look.add('setup-answers', file.path, 'an answer file')
    },
    end() {
      if (logs > 0) look.add('logs', '/Windows/System32/winevt/Logs', `${logs} event logs, ${formatBytes(logBytes)}`)
    },
  }
}

/** Elements of an answer file that hold a password, in themselves or in their `Value`. Source: Windows unattended setup reference. */
function hasPassword(text: string): boolean {
  let inside: string | undefined
  for (const [, end, tag = '', content = ''] of text.matchAll(/<(\/?)([A-Za-z:]{1,64})[^<>]{0,512}>([^<]{0,4096})/g)) {
    const name = tag.toLowerCase()
    if (end === '/') {
      if (name === inside) inside = undefined
      continue
    }
    if (elements.includes(name)) inside = name
    else if (inside === undefined || name !== 'value') continue
    if (content.trim() !== '' && content.trim() !== DELETED) return true
  }
  return false
}
