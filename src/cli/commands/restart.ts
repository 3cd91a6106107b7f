import { instanceCommand } from '../instance-command.ts'

export const restart = instanceCommand({
  name: 'restart',
  summary: 'Restart instances',
  options: { hard: 'by the reset button: for a guest that hangs, and one in error' },
  example: 'the guest shuts itself down first',
  done: 'restarted',
  act: (compute, id, { hard }) => compute.act(id, { reboot: { type: hard ? 'HARD' : 'SOFT' } }),
})
