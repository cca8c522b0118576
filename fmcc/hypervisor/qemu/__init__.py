"""The driver for QEMU, without libvirt: one QEMU process a machine, spoken to by QMP."""
