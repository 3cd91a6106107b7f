import { choice, flag, onImages, type StandardNamespace, text, whole } from './define.ts'

/** Limits on what a machine may take from its host. Names: Nova's extra specs that begin with `quota:`. */
export const limits: StandardNamespace = {
  namespace: 'Imprint::Limits',
  display_name: 'Limits of a flavor',
  description: 'How much of the disks, the network and the processors of its host a machine may use.',
  resource_type_associations: [{ name: 'OS::Nova::Flavor', prefix: 'quota:' }],
  objects: [
    {
      name: 'Disk',
      description: 'Limits on disks',
      properties: {
        disk_read_bytes_sec: whole('Read', 'Bytes a second.', 0),
        disk_write_bytes_sec: whole('Write', 'Bytes a second.', 0),
        disk_total_bytes_sec: whole('Read and write', 'Bytes a second.', 0),
        disk_read_iops_sec: whole('Reads', 'Requests a second.', 0),
        disk_write_iops_sec: whole('Writes', 'Requests a second.', 0),
        disk_total_iops_sec: whole('Reads and writes', 'Requests a second.', 0),
      },
    },
    {
      name: 'Network',
      description: 'Limits on network cards, in KiB and KiB a second',
      properties: {
        vif_inbound_average: whole('In, on average', 'KiB a second.', 0),
        vif_inbound_peak: whole('In, at most', 'KiB a second.', 0),
        vif_inbound_burst: whole('In, at once', 'KiB at the highest speed.', 0),
        vif_outbound_average: whole('Out, on average', 'KiB a second.', 0),
        vif_outbound_peak: whole('Out, at most', 'KiB a second.', 0),
        vif_outbound_burst: whole('Out, at once', 'KiB at the highest speed.', 0),
      },
    },
    {
      name: 'Processor',
      description: 'Limits on processors',
      properties: {
        cpu_shares: whole('Weight', 'The share of processors against that of others.', 2),
        cpu_period: whole('Period', 'Microseconds over which the time used is counted.', 1000, 1_000_000),
        cpu_quota: whole('Time', 'Microseconds of a period that may be used.', -1),
      },
    },
  ],
}

/** Names: capabilities of Ironic's nodes, as its inspection and its hardware drivers report them. */
export const bareMetal: StandardNamespace = {
  namespace: 'Imprint::BareMetal',
  display_name: 'Bare metal',
  description: 'What a server must have to be chosen by a flavor.',
  resource_type_associations: [{ name: 'OS::Nova::Flavor', prefix: 'capabilities:' }, { name: 'OS::Ironic::Node' }],
  properties: {
    boot_mode: choice('Boot mode', 'The firmware mode in which the server starts.', ['bios', 'uefi']),
    boot_option: choice('Boot from', 'Whether it starts from its own disk, from the network or from memory.', [
      'local',
      'netboot',
      'ramdisk',
      'kickstart',
    ]),
    disk_label: choice('Partition table', 'The table to write for an image of a single partition.', ['gpt', 'msdos']),
    secure_boot: flag('Secure boot', 'Only signed boot loaders and kernels start.'),
    trusted_boot: flag('Measured boot', 'What starts is measured into the TPM.'),
    server_model: text('Server model', 'The model, as the maker of the server writes it.'),
    cpu_vt: flag('Virtualisation', 'The processor can run virtual machines.'),
    cpu_aes: flag('AES', 'The processor has AES instructions.'),
    cpu_txt: flag('Trusted execution', 'The processor can measure what starts.'),
    cpu_hugepages: flag('Pages of 2 MiB', 'The processor has large pages.'),
    cpu_hugepages_1g: flag('Pages of 1 GiB', 'The processor has very large pages.'),
    sriov_enabled: flag('SR-IOV', 'Network cards can be split up.'),
    has_gpu: flag('GPU', 'The server has a graphics processor.'),
    has_nvme_ssd: flag('NVMe', 'The server has NVMe disks.'),
    hardware_supports_raid: flag('RAID', 'The server has a RAID controller.'),
  },
}

export const bareMetalImage: StandardNamespace = {
  namespace: 'Imprint::BareMetalImage',
  display_name: 'Images for bare metal',
  description: 'What writing an image to the disk of a server needs to know.',
  resource_type_associations: [{ name: 'OS::Glance::Image' }],
  properties: {
    img_type: choice('Kind of image', 'A whole disk with its partitions, or one partition.', ['whole-disk', 'partition']),
    rootfs_uuid: text('Root file system', 'Identifier of the root file system, for software RAID.'),
    rootdisk_min_bytes: whole('Least root disk', 'Bytes that the disk must have.', 0),
    server_models: text(
      'Server models',
      'Models that the image is made for, as maker/product with * and ?, separated by semicolons: imprint deploy refuses others.',
    ),
    firmware_packages: text('Firmware', 'Firmware files that the image brings for network cards and controllers.'),
  },
}

export const volumes: StandardNamespace = {
  namespace: 'Imprint::Volumes',
  display_name: 'Volumes made from an image',
  description: 'How a volume is made when a machine starts from it.',
  resource_type_associations: onImages,
  properties: {
    cinder_img_volume_type: text('Volume type', 'The type that a volume gets where none is asked for.'),
    cinder_encryption_key_id: text('Key', 'The key, in the key manager, of an image made from an encrypted volume.'),
    cinder_encryption_key_deletion_policy: choice('End of the key', 'What becomes of the key when the image is deleted.', [
      'on_image_deletion',
      'do_not_delete',
    ]),
  },
}

/** Kinds of software, to label an image or a machine with. */
export const software: StandardNamespace = {
  namespace: 'Imprint::Software',
  display_name: 'Software',
  description: 'Labels that say what is installed.',
  resource_type_associations: [
    { name: 'OS::Glance::Image' },
    { name: 'OS::Cinder::Volume', properties_target: 'image' },
    { name: 'OS::Nova::Server' },
  ],
  tags: [
    'database',
    'web-server',
    'load-balancer',
    'runtime',
    'container-host',
    'kubernetes-node',
    'desktop',
    'firewall',
    'storage',
  ].map((name) => ({ name })),
}
