/** Discoverable Partitions Specification (UAPI.5), UEFI 2.10 table 5.7, and Microsoft's PARTITION_INFORMATION_GPT. */
const gptNames: Readonly<Record<string, string>> = {
  'c12a7328-f81f-11d2-ba4b-00a0c93ec93b': 'EFI system',
  '21686148-6449-6e6f-744e-656564454649': 'BIOS boot',
  '0fc63daf-8483-4772-8e79-3d69d8477de4': 'Linux',
  '4f68bce3-e8cd-4db1-96e7-fbcaf984b709': 'Linux root (x86-64)',
  'b921b045-1df0-41c3-af44-4c6f280d3fae': 'Linux root (ARM 64)',
  '44479540-f297-41b2-9af7-d131d5f0458a': 'Linux root (x86)',
  'bc13c2ff-59e6-4262-a352-b275fd6f7172': 'Linux extended boot',
  '0657fd6d-a4ab-43c4-84e5-0933c84b4f4f': 'Linux swap',
  'e6d6d379-f507-44c2-a23c-238f2a3df928': 'Linux LVM',
  'a19d880f-05fc-4d3b-a006-743f0f84911e': 'Linux RAID',
  '933ac7e1-2eb4-4f13-b844-0e14e2aef915': 'Linux home',
  '9e1a2d38-c612-4316-aa26-8b49521e5a8b': 'PowerPC PReP boot',
  'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7': 'basic data',
  'e3c9e316-0b5c-4db8-817d-f92df00215ae': 'Microsoft reserved',
  'de94bba4-06d1-4d40-a16a-bfd50179d6ac': 'Windows recovery',
}
/** The list that Linux's fdisk and Andries Brouwer's page on partition types agree upon, the common ones. */
const mbrNames: Readonly<Record<number, string>> = {
  1: 'FAT12',
  4: 'FAT16',
  5: 'extended',
  6: 'FAT16',
  7: 'NTFS or exFAT',
  11: 'FAT32',
  12: 'FAT32',
  14: 'FAT16',
  15: 'extended',
  130: 'Linux swap',
  131: 'Linux',
  133: 'extended',
  142: 'Linux LVM',
  165: 'FreeBSD',
  166: 'OpenBSD',
  169: 'NetBSD',
  239: 'EFI system',
  253: 'Linux RAID',
}

/** @param guid lower case. @returns null where it is not known */
export const gptTypeName = (guid: string): string | null => gptNames[guid] ?? null
export const mbrTypeName = (type: number): string | null => mbrNames[type] ?? null
