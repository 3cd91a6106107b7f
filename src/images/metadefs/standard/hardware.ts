import { choice, flag, onImages, onImagesAndFlavors, type StandardNamespace, text, whole } from './define.ts'

/** What the guest expects to find. Names and values: Nova's image properties and flavor extra specs. */

const processors = [
  'aarch64',
  'alpha',
  'armv7l',
  'i686',
  'ia64',
  'loongarch64',
  'm68k',
  'mips',
  'mipsel',
  'mips64',
  'mips64el',
  'parisc',
  'ppc',
  'ppc64',
  'ppc64le',
  'riscv64',
  's390',
  's390x',
  'sparc',
  'sparc64',
  'x86_64',
]

export const architecture: StandardNamespace = {
  namespace: 'Imprint::Architecture',
  display_name: 'Processor and hypervisor',
  description: 'The processor that the system is built for, and the hypervisors that it can run on.',
  resource_type_associations: onImages,
  properties: {
    architecture: choice('Architecture', 'The processor that the code in the image is made for.', processors),
    hw_emulation_architecture: choice('Emulated architecture', 'The processor to emulate where the host has another.', [
      'aarch64',
      'mips',
      'mipsel',
      'ppc64le',
      's390x',
      'x86_64',
    ]),
    img_hv_type: choice('Hypervisor', 'The image runs on this kind of host only.', [
      'baremetal',
      'hyperv',
      'kvm',
      'lxc',
      'parallels',
      'qemu',
      'uml',
      'vmware',
      'xen',
    ]),
    img_hv_requested_version: text('Hypervisor version', 'A condition, as >=6.0, on the version of the hypervisor.'),
    hw_vm_mode: choice('Kind of virtualisation', 'Full machines, or one of the older ways.', ['hvm', 'xen', 'uml', 'exe']),
    img_hide_hypervisor_id: flag('Hide the hypervisor', 'The guest does not learn that it is one; some graphics drivers insist.'),
  },
}

const diskBuses = ['virtio', 'scsi', 'sata', 'ide', 'usb', 'fdc', 'xen', 'lxc', 'uml']

export const disk: StandardNamespace = {
  namespace: 'Imprint::Disk',
  display_name: 'Disks',
  description: 'How disks are attached.',
  resource_type_associations: onImages,
  properties: {
    hw_disk_bus: choice(
      'Disk bus',
      'The bus of disks. virtio is fastest; systems without its driver need sata or ide.',
      diskBuses,
    ),
    hw_cdrom_bus: choice('CD-ROM bus', 'The bus of CD-ROM drives.', diskBuses),
    hw_floppy_bus: choice('Floppy bus', 'The bus of floppy drives.', ['fdc']),
    hw_scsi_model: choice('SCSI controller', 'The controller, where the bus is scsi.', [
      'auto',
      'buslogic',
      'ibmvscsi',
      'lsilogic',
      'lsisas1068',
      'lsisas1078',
      'virtio-scsi',
      'vmpvscsi',
    ]),
    hw_rescue_bus: choice('Bus of the rescue disk', 'The bus on which a rescue image is attached.', diskBuses),
    hw_rescue_device: choice('Rescue device', 'As what a rescue image is attached.', ['disk', 'cdrom', 'floppy']),
    img_root_device_name: text('Root device', 'The name under which the system finds its root disk, as /dev/vda.'),
  },
}

export const network: StandardNamespace = {
  namespace: 'Imprint::Network',
  display_name: 'Network cards',
  description: 'Which network card the guest finds.',
  resource_type_associations: onImages,
  properties: {
    hw_vif_model: choice('Model', 'virtio is fastest; systems without its driver need e1000 or rtl8139.', [
      'virtio',
      'e1000',
      'e1000e',
      'igb',
      'lan9118',
      'ne2k_pci',
      'netfront',
      'pcnet',
      'rtl8139',
      'spapr-vlan',
      'sriov',
      'VirtualE1000',
      'VirtualE1000e',
      'VirtualPCNet32',
      'VirtualVmxnet',
      'VirtualVmxnet3',
      'vmxnet',
    ]),
    hw_vif_multiqueue_enabled: flag('Several queues', 'One queue a processor: for guests that move many packets.'),
  },
}

export const display: StandardNamespace = {
  namespace: 'Imprint::DisplayAndInput',
  display_name: 'Display, input and serial ports',
  description: 'What a person at the console of the machine has.',
  resource_type_associations: onImages,
  properties: {
    hw_video_model: choice('Graphics card', 'The graphics card; none leaves it out.', [
      'bochs',
      'cirrus',
      'gop',
      'none',
      'qxl',
      'vga',
      'virtio',
      'vmvga',
      'xen',
    ]),
    hw_video_ram: whole('Video memory', 'MB of video memory; a flavor sets the limit.', 0),
    hw_input_bus: choice('Input bus', 'The bus of tablet and keyboard.', ['usb', 'virtio']),
    hw_pointer_model: choice('Pointer', 'A tablet keeps the pointer under the hand.', ['usbtablet']),
    hw_serial_port_count: whole('Serial ports', 'How many serial ports the machine has.', 0, 4),
  },
}

export const firmware: StandardNamespace = {
  namespace: 'Imprint::Firmware',
  display_name: 'Firmware and boot',
  description: 'How the machine starts, and what is checked on the way.',
  resource_type_associations: onImages,
  properties: {
    hw_firmware_type: choice('Firmware', 'What the image is made to start from.', ['bios', 'uefi']),
    hw_machine_type: text('Machine type', 'The board to emulate, as the emulator calls it: pc, q35, virt, pseries.'),
    os_secure_boot: choice('Secure boot', 'Whether only signed boot loaders and kernels may start.', [
      'required',
      'optional',
      'disabled',
    ]),
    hw_firmware_stateless: flag('Firmware without memory', 'Settings of the firmware are forgotten at each stop.'),
    hw_boot_menu: flag('Boot menu', 'The firmware asks what to start from.'),
    hw_tpm_version: choice('TPM version', 'The version of the trusted platform module.', ['1.2', '2.0']),
    hw_tpm_model: choice('TPM model', 'How the module is attached.', ['tpm-crb', 'tpm-tis']),
    kernel_id: text('Kernel', 'The image that holds the kernel, where the disk holds none.'),
    ramdisk_id: text('Initial RAM disk', 'The image that holds the initial RAM disk, where the disk holds none.'),
  },
}

export const processor: StandardNamespace = {
  namespace: 'Imprint::Processor',
  display_name: 'Processor',
  description: 'How processors are laid out and shared, on images and on flavors.',
  resource_type_associations: onImagesAndFlavors,
  properties: {
    cpu_sockets: whole('Sockets', 'How many sockets the guest sees.', 1),
    cpu_cores: whole('Cores', 'How many cores a socket has.', 1),
    cpu_threads: whole('Threads', 'How many threads a core has.', 1),
    cpu_max_sockets: whole('Most sockets', 'The layout never has more sockets.', 1),
    cpu_max_cores: whole('Most cores', 'The layout never has more cores.', 1),
    cpu_max_threads: whole('Most threads', 'The layout never has more threads.', 1),
    cpu_policy: choice('Sharing', 'Whether processors of the host are shared with others.', ['shared', 'dedicated', 'mixed']),
    cpu_thread_policy: choice('Threads of the host', 'What is done with the other thread of a core.', [
      'prefer',
      'isolate',
      'require',
    ]),
    numa_nodes: whole('NUMA nodes', 'Over how many nodes processors and memory are spread.', 1),
    pci_numa_affinity_policy: choice('Nearness of devices', 'Whether passed-through devices must be on the same node.', [
      'required',
      'legacy',
      'preferred',
      'socket',
    ]),
    pmu: flag('Performance counters', 'The guest can count events of the processor; off, it runs more evenly.'),
    viommu_model: choice('IOMMU', 'The IOMMU that the guest has.', ['none', 'auto', 'intel', 'smmuv3', 'virtio']),
    maxphysaddr_mode: choice('Width of addresses', 'Where the number of address bits comes from.', ['emulate', 'passthrough']),
    maxphysaddr_bits: whole('Address bits', 'How many bits a physical address has in the guest.', 32, 64),
  },
}

export const memory: StandardNamespace = {
  namespace: 'Imprint::Memory',
  display_name: 'Memory',
  description: 'How memory is backed and guarded, on images and on flavors.',
  resource_type_associations: onImagesAndFlavors,
  properties: {
    mem_page_size: text('Page size', 'small, large, any, or a size as 2MB: large pages spare the processor look-ups.'),
    mem_encryption: flag('Encrypted memory', 'The host cannot read the memory of the guest (AMD SEV); needs uefi.'),
    mem_encryption_model: choice('Kind of encryption', 'The technique of the processor.', ['amd-sev', 'amd-sev-es']),
    locked_memory: flag('Locked memory', 'The host never swaps the memory of the guest.'),
  },
}

export const upkeep: StandardNamespace = {
  namespace: 'Imprint::Watchdog',
  display_name: 'Watchdog',
  description: 'What happens when the guest no longer answers.',
  resource_type_associations: onImagesAndFlavors,
  properties: {
    watchdog_action: choice('Watchdog', 'What is done with a machine whose system stopped feeding its watchdog.', [
      'disabled',
      'none',
      'pause',
      'poweroff',
      'reset',
    ]),
  },
}

export const clockAndChance: StandardNamespace = {
  namespace: 'Imprint::ClockAndRandomness',
  display_name: 'Clock and randomness',
  description: 'Sources of time and of random numbers.',
  resource_type_associations: onImages,
  properties: {
    hw_rng_model: choice('Random numbers', 'A device that gives the guest random numbers of the host.', ['virtio']),
    hw_time_hpet: flag('HPET', 'The guest has a high precision event timer; some Windows versions want it.'),
  },
}

export const vmware: StandardNamespace = {
  namespace: 'Imprint::VMware',
  display_name: 'VMware',
  description: 'What ESXi needs to know of an image made for it.',
  resource_type_associations: onImages,
  properties: {
    vmware_adaptertype: choice('Disk adapter', 'The controller that the disk was made for.', [
      'lsiLogic',
      'lsiLogicsas',
      'busLogic',
      'ide',
      'paraVirtual',
    ]),
    vmware_disktype: choice('Kind of disk', 'How the disk is laid out in its file.', [
      'streamOptimized',
      'sparse',
      'preallocated',
    ]),
    vmware_ostype: text('Guest id', 'The system, as VMware names it: debian12_64Guest, windows2019srv_64Guest.'),
    hw_img_linked_clone: flag('Linked clone', 'Machines may share the unchanged part of the disk.'),
  },
}

export const traits: StandardNamespace = {
  namespace: 'Imprint::ProcessorFeatures',
  display_name: 'Features of the processor',
  description: 'Set to required, a machine is only started where the host has the feature.',
  resource_type_associations: [
    { name: 'OS::Glance::Image', prefix: 'trait:' },
    { name: 'OS::Cinder::Volume', prefix: 'trait:', properties_target: 'image' },
    { name: 'OS::Nova::Flavor', prefix: 'trait:' },
  ],
  properties: Object.fromEntries(
    [
      ['HW_CPU_HYPERTHREADING', 'Two threads a core'],
      ['HW_CPU_X86_AESNI', 'AES instructions'],
      ['HW_CPU_X86_AVX', 'AVX'],
      ['HW_CPU_X86_AVX2', 'AVX2: needed by systems built for x86-64-v3'],
      ['HW_CPU_X86_AVX512F', 'AVX-512: needed by systems built for x86-64-v4'],
      ['HW_CPU_X86_SSE42', 'SSE 4.2: needed by systems built for x86-64-v2'],
      ['HW_CPU_X86_SHA', 'SHA instructions'],
      ['HW_CPU_X86_VMX', 'Nested virtualisation on Intel'],
      ['HW_CPU_X86_SVM', 'Nested virtualisation on AMD'],
      ['HW_CPU_X86_AMD_SEV', 'Memory encryption of AMD'],
      ['HW_CPU_X86_PDPE1GB', 'Pages of 1 GiB'],
      ['COMPUTE_SECURITY_TPM_2_0', 'A TPM 2.0 for the guest'],
      ['COMPUTE_SECURITY_UEFI_SECURE_BOOT', 'Secure boot for the guest'],
    ].map(([name, meaning]) => [name, choice(meaning as string, `${meaning}.`, ['required', 'forbidden'])]),
  ),
}
