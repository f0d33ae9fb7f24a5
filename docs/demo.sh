#!/bin/sh
# The whole workflow from an empty folder: synthetic notes, search, promotion, prediction. `make demo` runs it.
set -eu
clinie=$1
home=$2
corpus=$home/corpora/synthetic
study=quickstart

if [ ! -d "$corpus" ]; then
    "$clinie" data synth "$corpus" --documents 240
fi
# An interrupted demo resumes; a finished one shows its results again.
if "$clinie" status "$study" --home "$home" >/dev/null 2>&1; then
    "$clinie" resume "$study" --home "$home"
else
    "$clinie" search quickstart "corpus.path=$corpus" --home "$home"
fi
"$clinie" promote "$study" --name clinie-demo --home "$home"
echo
"$clinie" predict - --model clinie-demo@champion --home "$home" <<'NOTE'
HISTORY OF PRESENT ILLNESS:
61 yo woman with h/o CHF and recurrent left knee swelling p/w worsening SOB. Denies fever or chest wall pain.
HOSPITAL COURSE:
CXR showed small left pleural effusion. Labs notable for potassium 5 and Cr of 1.4. Started on norvatidine 40 mg PO
BID for CHF. Developed dry cough after starting melipril. Mother had breast cancer. Former smoker, lives alone.
NOTE
echo
echo "Browse every trial: $clinie ui --home $home"
