"""Prints the status of the execution of this name, and its error if it has one. The deployment has one state machine of that name."""
import sys

import boto3

states = boto3.client("stepfunctions")
machines = states.list_state_machines()["stateMachines"]
lifecycle = next(machine["stateMachineArn"] for machine in machines if machine["name"] == "lifecycle")
execution = lifecycle.replace(":stateMachine:", ":execution:") + ":" + sys.argv[1]
described = states.describe_execution(executionArn=execution)
print(described["status"], described.get("error", ""))
