/** Which test files start first: what is long and starts last would keep one processor waiting for the other. */

/** Half a minute and more, about, on two processors. The longest first, as the end of `npm test` names them. */
export const long: readonly string[] = [
  'test/e2e/machines.test.ts',
  'src/instances/hypervisor/qemu/qemu-disks.test.ts',
  'test/e2e/openstack-compute.test.ts',
  'test/e2e/openstack-volume.test.ts',
  'test/formats/exchange.test.ts',
  'src/instances/hypervisor/qemu/qemu-hypervisor.test.ts',
  'test/e2e/snapshots.test.ts',
  'test/e2e/live-migration.test.ts',
  'test/e2e/machine-memory.test.ts',
  'test/e2e/openstack-image.test.ts',
  'src/instances/hypervisor/qemu/qemu-memory.test.ts',
  'test/e2e/debian.test.ts',
  'test/durability/kill-volumes.test.ts',
  'test/durability/kill-instances.test.ts',
  'test/durability/kill.test.ts',
  'test/e2e/glance-images.test.ts',
  'test/e2e/glance-metadefs.test.ts',
  'test/e2e/tempest-compute.test.ts',
  'test/e2e/tempest-rbac.test.ts',
  'test/e2e/netboot.test.ts',
  'bench/run.test.ts',
  'src/cli/commands/netboot.test.ts',
  'src/instances/hypervisor/remote/remote-qemu.test.ts',
  'src/instances/hypervisor/qemu/qemu-migration.test.ts',
  'src/cli/image-add/image-add.test.ts',
  'test/e2e/machine-migration.test.ts',
  'test/e2e/machine-volumes.test.ts',
  'test/differential/glance.test.ts',
  'src/cli/commands/commands.test.ts',
  'src/store/chunks/kill.test.ts',
  'src/store/chunks/file-digests.test.ts',
  'test/durability/kill-migration.test.ts',
  'test/durability/disk-faults.test.ts',
  'src/serve/http/identity/openstack-client.test.ts',
  'test/e2e/deploy.test.ts',
  'test/e2e/cli-instances.test.ts',
  'test/differential/keystone.test.ts',
  'src/images/snapshots/kill.test.ts',
]

/** The same files: the long ones, and then the rest as they came. */
export function longestFirst(files: readonly string[]): string[] {
  const rank = (file: string) => (long.includes(file) ? long.indexOf(file) : long.length)
  return files.toSorted((one, other) => rank(one) - rank(other))
}
