import { choice, flag, onImages, type StandardNamespace, text, whole } from './define.ts'

/** What is installed in the image. Names: Nova's image properties; values of os_distro: short ids of libosinfo. */
export const operatingSystem: StandardNamespace = {
  namespace: 'Imprint::OperatingSystem',
  display_name: 'Operating system',
  description: 'Which system is installed in the image, and how one logs in to it.',
  resource_type_associations: onImages,
  properties: {
    os_type: choice('Kind of system', 'Windows guests get the hypervisor features and the clock that they expect.', [
      'linux',
      'windows',
    ]),
    os_distro: choice('Distribution', 'The short name under which libosinfo knows the distribution.', [
      'almalinux',
      'alpinelinux',
      'alt',
      'arch',
      'caasp',
      'centos',
      'cirros',
      'debian',
      'dragonflybsd',
      'eos',
      'fedora',
      'freebsd',
      'freedos',
      'gentoo',
      'haiku',
      'netbsd',
      'nixos',
      'ol',
      'openbsd',
      'opensolaris',
      'opensuse',
      'rhel',
      'rocky',
      'sled',
      'sles',
      'solaris',
      'ubuntu',
      'voidlinux',
      'windows',
    ]),
    os_version: text('Version', 'The version as the maker of the system writes it: 12, 24.04, 2022.'),
    os_admin_user: text(
      'Administrator',
      'The account that gets the key or the password of a new machine: root, debian, Administrator.',
    ),
    os_command_line: text(
      'Kernel command line',
      'Given to the kernel where the image is started with a kernel from outside (kernel_id).',
    ),
    os_require_quiesce: flag(
      'Quiesce for snapshots',
      'A snapshot fails rather than being taken of file systems that could not be frozen.',
    ),
    os_shutdown_timeout: whole(
      'Time to shut down',
      'Seconds that the system gets to stop by itself before it is switched off.',
      0,
      3600,
    ),
  },
}

export const agents: StandardNamespace = {
  namespace: 'Imprint::GuestAgents',
  display_name: 'Agents in the guest',
  description: 'What runs in the guest to be set up from outside and to be spoken to.',
  resource_type_associations: onImages,
  properties: {
    hw_qemu_guest_agent: choice('QEMU guest agent', 'The agent is installed; the machine gets its channel.', ['yes', 'no']),
    img_config_drive: choice('Configuration drive', 'Whether the system must find its settings on a drive.', [
      'mandatory',
      'optional',
    ]),
    cloud_init: flag('cloud-init', 'cloud-init, or one that understands the same data, sets the system up at its first start.'),
    cloud_init_datasources: {
      title: 'Data sources of cloud-init',
      description: 'Where the image looks for its settings, in this order.',
      type: 'array',
      items: { type: 'string', enum: ['NoCloud', 'ConfigDrive', 'OpenStack', 'Ec2', 'GCE', 'Azure', 'VMware', 'OVF', 'None'] },
      uniqueItems: true,
    },
    ignition: flag('Ignition', 'Ignition sets the system up at its first start, as on Flatcar and Fedora CoreOS.'),
    sysprep: flag('Generalised', 'Identifiers, keys and logs of the machine that it was made on were removed.'),
  },
}

/** Names of lifecycle and licence properties: Sovereign Cloud Stack, standard SCS-0102. */
export const maintenance: StandardNamespace = {
  namespace: 'Imprint::Maintenance',
  display_name: 'Origin and upkeep',
  description: 'Where the image comes from, how long it is looked after, and by whom.',
  resource_type_associations: onImages,
  properties: {
    image_source: text('Source', 'The address that the image was taken from, or a word that says that it is private.'),
    image_description: text('Page about the image', 'The address of a page that describes how it is made.'),
    image_build_date: text('Built on', 'The day on which it was built, as 2026-11-21, with a time if wanted.'),
    image_original_user: text('First user', 'The account with which one logs in at first.'),
    os_purpose: choice('Purpose', 'What the image is meant for.', ['generic', 'minimal', 'k8snode', 'gpu', 'network', 'custom']),
    patchlevel: text('Patch level', 'The state of its updates, in the words of its maker.'),
    replace_frequency: choice('Replaced', 'How often a newer image takes its place.', [
      'never',
      'critical_bug',
      'yearly',
      'quarterly',
      'monthly',
      'weekly',
      'daily',
    ]),
    hotfix_hours: whole('Hours to a fix', 'Within how many hours a grave hole is closed; 0: no promise.', 0),
    provided_until: text('Provided until', 'Until when newer images come: a day, none, notice, or forever.'),
    uuid_validity: text('Id stays until', 'How long this very image can be had: a day, last-N, notice, none, or forever.'),
    maintained_until: text('Maintained until', 'The day up to which its maker publishes fixes.'),
    l1_support_contact: text('Support', 'Where one asks first.'),
  },
}

export const licence: StandardNamespace = {
  namespace: 'Imprint::Licence',
  display_name: 'Licence and subscription',
  description: 'What must be paid or agreed to before a machine is started from the image.',
  resource_type_associations: onImages,
  properties: {
    license_included: flag('Licence included', 'The price of a machine covers the licence of the system in it.'),
    license_required: flag('Licence required', 'The user must bring a licence.'),
    subscription_included: flag('Subscription included', 'The price of a machine covers the subscription to updates.'),
    subscription_required: flag('Subscription required', 'Updates come only to those with a subscription of their own.'),
    license: text('Licence', 'Short names from the SPDX list, as in Apache-2.0 AND GPL-2.0-only, or the name of a contract.'),
  },
}

export const resources: StandardNamespace = {
  namespace: 'Imprint::MinimumResources',
  display_name: 'Least resources',
  description:
    'What a machine needs at least. Memory and disk are attributes of every image, min_ram and min_disk; the rest is here.',
  resource_type_associations: onImages,
  properties: {
    min_vcpus: whole('Processors', 'Virtual processors that the system needs to be of use.', 1, 1024),
    recommended_ram: whole('Recommended memory', 'MB with which it runs well.', 0),
    recommended_disk: whole('Recommended disk', 'GB with which it runs well.', 0),
    recommended_vcpus: whole('Recommended processors', 'Virtual processors with which it runs well.', 1, 1024),
  },
}

export const signature: StandardNamespace = {
  namespace: 'Imprint::Signature',
  display_name: 'Signature of the bytes',
  description: 'Says who vouches for the bytes of the image, and how that is checked.',
  resource_type_associations: onImages,
  properties: {
    img_signature: text('Signature', 'Signature of the digest of the bytes, in base64.'),
    img_signature_hash_method: choice('Digest', 'The digest that was signed.', ['SHA-224', 'SHA-256', 'SHA-384', 'SHA-512']),
    img_signature_key_type: choice('Key', 'The kind of key that signed.', [
      'RSA-PSS',
      'DSA',
      'ECC_SECT571K1',
      'ECC_SECT409K1',
      'ECC_SECT571R1',
      'ECC_SECT409R1',
      'ECC_SECP521R1',
      'ECC_SECP384R1',
    ]),
    img_signature_certificate_uuid: text('Certificate', 'Where the key manager keeps the certificate of the key.'),
  },
}
