#!/usr/bin/env python3
"""Sums a profile by kernel: `ncu --metrics gpu__time_duration.sum --csv PROGRAM > FILE`, then `kernel_times.py FILE`."""
import collections
import csv
import sys

with open(sys.argv[1], newline="") as file:
    # what the program prints comes before the table
    lines = [line for line in file if line.startswith('"')]
unit = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3}
times = collections.defaultdict(list)
for row in csv.DictReader(lines):
    if row.get("Metric Name") == "gpu__time_duration.sum":
        times[row["Kernel Name"].split("(")[0]].append(float(row["Metric Value"].replace(",", "")) * unit[row["Metric Unit"]])
total = sum(map(sum, times.values()))
print(f"{'us':>10} {'share':>6} {'calls':>6} {'us each':>8}  kernel")
for name, own in sorted(times.items(), key=lambda item: -sum(item[1])):
    print(f"{sum(own):10.1f} {100 * sum(own) / total:5.1f}% {len(own):6d} {sum(own) / len(own):8.2f}  {name}")
print(f"{total:10.1f} in all, one after the other")
