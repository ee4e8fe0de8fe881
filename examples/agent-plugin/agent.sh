#!/bin/sh
# Answers one HTTP request: the request is standard input, the answer standard output.
: "${TEMPERATURE_FILE:=/sys/class/thermal/thermal_zone0/temp}"
: "${DISK:=/}"
: "${QUEUE_FOLDER:=/var/spool/jobs}"

# The request ends with an empty line. It is read to there, and every request gets the same answer.
cr=$(printf '\r')
while read -r line && [ -n "${line%"$cr"}" ]; do :; done

# What cannot be read has no line: a number that is not known is not 0.
body=$(
    millicelsius=$(cat "$TEMPERATURE_FILE") && echo "pi_cpu_millicelsius $millicelsius"
    df -kP "$DISK" | awk 'NR == 2 { print "pi_disk_total_kib " $2; print "pi_disk_free_kib " $4 }'
    [ -r "$QUEUE_FOLDER" ] && echo "pi_queue_jobs $(find "$QUEUE_FOLDER" -type f | wc -l)"
)
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n'
printf 'Content-Length: %s\r\n\r\n%s\n' "$((${#body} + 1))" "$body"
