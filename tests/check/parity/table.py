"""Print the largest relative difference of every variant and quantity, as a table.

    python -m tests.check.parity.table

Each cell is the largest over all arrays of that quantity: PyTorch with MindSpore, PyTorch with the float64 record,
MindSpore with the float64 record.
"""

from earthsr.check.parity import compare, read_record
from earthsr.check.parity_compare import QUANTITIES
from tests.check.parity.cases import CASES, RECORDS
from tests.check.parity.test_parity import measured


def main():
    print("| variant | " + " | ".join(quantity.name for quantity in QUANTITIES) + " |")
    print("|---" * (len(QUANTITIES) + 1) + "|")
    largest, least_left = {}, {}
    for name in CASES:
        torch, mindspore = measured("torch", name), measured("mindspore", name)
        reference = read_record(RECORDS / f"{name}.safetensors")
        found = [compare(torch, mindspore), compare(torch, reference), compare(mindspore, reference)]
        cells = []
        for quantity in QUANTITIES:
            rows = [[row for row in each.rows if row.quantity == quantity.name] for each in found]
            values = [max(row.difference for row in each) for each in rows]
            largest[quantity.name] = max(largest.get(quantity.name, 0.0), *values)
            shares = [row.share for each in rows for row in each]
            least_left[quantity.name] = max(least_left.get(quantity.name, 0.0), *shares)
            cells.append(" / ".join(f"{value:.0e}" for value in values))
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("| largest | " + " | ".join(f"{largest[q.name]:.1e}" for q in QUANTITIES) + " |")
    print("| fixed tolerance | " + " | ".join(f"{q.tolerance:.0e}" for q in QUANTITIES) + " |")
    print("| share of tolerance | " + " | ".join(f"{100 * least_left[q.name]:.0f} %" for q in QUANTITIES) + " |")


if __name__ == "__main__":
    main()
