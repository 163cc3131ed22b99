//! Stripewise: a polled-mode RAID5 storage target.
