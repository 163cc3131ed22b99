# shellcheck shell=bash
# The machine of those who try NVMe controllers. Sourced, after guest.sh.

# nvme_boot OPTIONS...: Debian's stock kernel on two emulated processors with an IOMMU, and these devices; no network. Runs the
# job of `guest_options` to its end, and exits with its status. Needs: stock, the folder that `stock-kernel` prints; iommu, on or
# off. A machine that is busy with other things may be late with the first ticks of the timer, which the kernel takes for a
# defect unless it is told not to look (no_timer_check).
nvme_boot() {
    local unit=()
    [ "$iommu" = off ] || unit=(-device intel-iommu,intremap=on,caching-mode=on)
    guest_boot qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
        -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m "$mem" \
        "${unit[@]}" \
        -chardev stdio,id=console,signal=off -serial chardev:console \
        -fsdev local,id=machine,path=/,readonly=on,security_model=none,multidevs=remap \
        -device virtio-9p-pci,fsdev=machine,mount_tag=machine \
        -fsdev "local,id=out,path=$out,security_model=none" \
        -device virtio-9p-pci,fsdev=out,mount_tag=out \
        "$@" \
        -kernel "$stock/vmlinuz" -initrd "$stock/initramfs" \
        -append "console=ttyS0 quiet panic=-1 no_timer_check intel_iommu=$iommu GUEST_INIT=$here/guest-init"
}
