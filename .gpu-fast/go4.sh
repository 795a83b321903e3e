cd "$(dirname "$0")"
for op in two_shot rs one_shot agr agc mag; do timeout 30 python3 ops.py $op 2>&1 | grep -v '^NVIDIA' | tail -12; done
BUDGET=45 timeout 55 python3 go4.py 2>&1 | tail -40
