"""Posts a body, and prints the status and what is answered: python3 post.py URL BODY"""
import sys
import urllib.error
import urllib.request

url, body = sys.argv[1:]
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body.encode(), {"content-type": "application/json"}))
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
