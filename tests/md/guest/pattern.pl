#!/usr/bin/perl
# Blocks that tell who they are.
#
#   pattern.pl fill DEVICE GENERATION [FIRST COUNT]   writes such blocks, all or some
#   pattern.pl load DEVICE GENERATION WORKERS LOG     overwrites them all again and again,
#       in an order that jumps about, with one generation after another; a line in LOG,
#       "BLOCK GENERATION", says that it is written, as far as Linux knows
#
# A block of 4 KiB is one word of 64 bits (little endian), repeated:
#   (GENERATION << 32 | block number + 1) * 0x9e3779b97f4a7c15, modulo 2^64.
# The multiplier is odd, so a word still says its generation and number; and it mixes
# the bits, so that the XOR of blocks looks like none of them. It is a program of its
# own, of perl alone, so that nothing of Stripewise has a part in what Linux wrote.
use strict;
use warnings;
no warnings 'portable'; # of words of 64 bits
use Fcntl;
use IO::Handle;
use constant BLOCK => 4096;

sub block {
    my ($generation, $number) = @_;
    use integer; # wraps, as the format has it
    return pack("q<", ($generation << 32 | $number + 1) * -0x61c8864680b583eb) x (BLOCK / 8);
}

sub blocks_of {
    my ($device) = @_;
    my $size = sysseek($device, 0, 2) or die "size: $!\n";
    return int($size / BLOCK);
}

sub put {
    my ($device, $number, $bytes) = @_;
    defined sysseek($device, $number * BLOCK, 0) or die "seek to block $number: $!\n";
    my $written = syswrite($device, $bytes);
    defined $written and $written == length $bytes or die "write of block $number: $!\n";
}

my ($verb, $path, $generation, @rest) = @ARGV;
die "usage: see the head of $0\n" unless defined $generation;

if ($verb eq 'fill') {
    sysopen(my $device, $path, O_RDWR) or die "$path: $!\n";
    my ($first, $count) = @rest ? @rest : (0, blocks_of($device));
    for (my $at = $first; $at < $first + $count; $at += 64) {
        my $end = $at + 64 < $first + $count ? $at + 64 : $first + $count;
        put($device, $at, join '', map { block($generation, $_) } $at .. $end - 1);
    }
    # The end of a device's file descriptor does not wait for its writes.
    $device->sync or die "$path: fsync: $!\n";
} elsif ($verb eq 'load') {
    my ($workers, $log) = @rest;
    for my $worker (0 .. $workers - 1) {
        defined(my $pid = fork) or die "fork: $!\n";
        next if $pid;
        sysopen(my $device, $path, O_RDWR | O_SYNC) or die "$path: $!\n";
        open(my $safe, '>>', $log) or die "$log: $!\n";
        my $count = blocks_of($device);
        # A step that shares no factor with the count visits each block once.
        my $step = int($count * 0.618) | 1;
        $step += 2 while gcd($step, $count) > 1;
        for (;; $generation++) {
            # A block is always the same worker's, so that its generations come in order.
            for (my $i = $worker; $i < $count; $i += $workers) {
                my $number = $i * $step % $count;
                put($device, $number, block($generation, $number));
                # One system call a line: those of several processes do not mix.
                syswrite($safe, "$number $generation\n");
            }
        }
    }
    1 while wait != -1;
    die "the workers have ended\n";
} else {
    die "usage: see the head of $0\n";
}

sub gcd {
    my ($larger, $smaller) = @_;
    ($larger, $smaller) = ($smaller, $larger % $smaller) while $smaller;
    return $larger;
}
