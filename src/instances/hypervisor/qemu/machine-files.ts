/** Names in a machine's running folder, which is QEMU's working folder: on its command line they stand without a path. */
export const files = {
  monitor: 'qmp.sock',
  serial: 'serial.sock',
  agent: 'agent.sock',
  /** Of a machine that goes on from its memory: made by QEMU. */
  incoming: 'incoming.sock',
  /** Of a machine that comes from elsewhere: where its disks are written to. */
  copies: 'copies.sock',
  console: 'console.log',
  seed: 'seed.iso',
  variables: 'uefi-variables.fd',
  disk: (name: string, layer: number) => `disk-${name}.${layer}.qcow2`,
  isLayer: (file: string) => /^disk-[a-zA-Z0-9-]+\.\d+\.qcow2$/.test(file),
} as const
