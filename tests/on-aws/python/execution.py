"""Prints the status of an execution, and its error if it has one: the state machine's name, the
execution's name."""
import sys

import boto3

states = boto3.client("stepfunctions")
machines = states.list_state_machines()["stateMachines"]
lifecycle = next(machine["stateMachineArn"] for machine in machines if machine["name"] == sys.argv[1])
execution = lifecycle.replace(":stateMachine:", ":execution:") + ":" + sys.argv[2]
described = states.describe_execution(executionArn=execution)
print(described["status"], described.get("error", ""))
