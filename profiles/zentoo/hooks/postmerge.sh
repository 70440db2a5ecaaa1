#!/bin/busybox sh
# Lists the packages that are left.
set -e
cd /var/db/pkg
printf '%s\n' */* > /etc/packages
