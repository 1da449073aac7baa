//! The OpenAPI document of a served flow.

use flow::{Field, Signature};
use serde_json::{Map, Value, json};

/// The OpenAPI document of a served flow.
///
/// # Source
///
/// `generate_swagger` in `promptflow/core/_serving/swagger.py`, and what `pf flow serve` adds to
/// it.
pub(super) fn swagger(signature: &Signature) -> Value {
    let inputs = signature.inputs.as_deref().unwrap_or_default();
    let name = &signature.name;
    json!({
        "openapi": "3.0.0",
        "info": info(signature),
        "components": { "securitySchemes": { "bearerAuth": { "type": "http", "scheme": "bearer" } } },
        "security": [{ "bearerAuth": [] }],
        "paths": {
            "/score": { "post": {
                "summary": format!("run promptflow: {name} with an given input"),
                "requestBody": {
                    "description": "promptflow input data",
                    "required": !inputs.is_empty(),
                    "content": { "application/json": { "schema": request_schema(inputs), "example": signature.sample.clone().unwrap_or(json!({})) } },
                },
                "responses": {
                    "200": { "description": "successful operation", "content": { "application/json": { "schema": response_schema(signature) } } },
                    "400": { "description": "Invalid input" },
                    "default": { "description": "unexpected error" },
                },
            } },
            "/feedback": feedback(),
        },
    })
}

/// The name of a flow, and which of its inputs and outputs are those of a chat.
fn info(signature: &Signature) -> Value {
    let inputs = signature.inputs.as_deref().unwrap_or_default();
    let name = &signature.name;
    let mut info = json!({ "title": format!("Promptflow[{name}] API"), "version": "1.0.0", "x-flow-name": name });
    if let Some(field) = signature.chat_input() {
        info["x-chat-input"] = json!(field.name);
        info["x-flow-type"] = json!("chat");
    }
    if let Some(field) = inputs.iter().find(|field| field.is_chat_history) {
        info["x-chat-history"] = json!(field.name);
    }
    if let Some(field) = signature.chat_output() {
        info["x-chat-output"] = json!(field.name);
    }
    info
}

/// The schema of a request's body.
fn request_schema(inputs: &[Field]) -> Value {
    let mut asked = json!({ "type": "object" });
    if !inputs.is_empty() {
        let properties: Map<String, Value> = inputs.iter().map(|field| (field.name.clone(), schema(field))).collect();
        asked["properties"] = Value::Object(properties);
        asked["required"] = inputs.iter().map(|field| field.name.clone()).collect();
    }
    asked
}

/// The schema of an answer's body.
fn response_schema(signature: &Signature) -> Value {
    let outputs: Vec<&Field> = signature
        .outputs
        .iter()
        .filter(|field| !field.evaluation_only)
        .collect();
    let mut answered = json!({ "type": "object" });
    if !outputs.is_empty() {
        let plain = |field: &Field| Field {
            default: None,
            ..field.clone()
        };
        let properties: Map<String, Value> = outputs
            .iter()
            .map(|field| (field.name.clone(), schema(&plain(field))))
            .collect();
        answered["properties"] = Value::Object(properties);
    }
    answered
}

fn feedback() -> Value {
    let any = json!({ "additionalProperties": {}, "type": "object" });
    json!({
        "parameters": [{
            "name": "flatten", "in": "query", "required": false, "description": "flatten the feedback data into traced data",
            "schema": { "type": "boolean" },
        }],
        "post": {
            "summary": "collect promptflow feedback",
            "requestBody": {
                "description": "promptflow feedback data", "required": true,
                "content": { "application/json": { "schema": any } },
            },
            "responses": {
                "200": { "description": "successful operation", "content": { "application/json": { "schema": any } } },
                "400": { "description": "Invalid input" },
                "default": { "description": "unexpected error" },
            },
        },
    })
}

fn schema(field: &Field) -> Value {
    let kind = match field.kind.as_str() {
        "int" => "integer",
        "double" => "number",
        "bool" => "boolean",
        "string" => "string",
        "list" => "array",
        _ => "object",
    };
    let mut schema = json!({ "type": kind });
    if let Some(description) = &field.description {
        schema["description"] = json!(description);
    }
    // As Python has it: an empty default is none.
    let is_empty =
        |value: &Value| [json!(0), json!(0.0), json!(false), json!(""), json!([]), json!({})].contains(value);
    if let Some(default) = field.default.as_ref().filter(|value| !is_empty(value)) {
        schema["default"] = default.clone();
    }
    match kind {
        "object" => schema["additionalProperties"] = json!({}),
        "array" => schema["items"] = json!({ "type": "object", "additionalProperties": {} }),
        _ => {}
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document of `pf flow serve` of promptflow 1.18.5 for this flow.
    const RECORDED: &str = include_str!("../../../tests/serve/swagger.json");

    fn signature() -> Signature {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/echo");
        flow::signature(folder.as_ref()).unwrap()
    }

    #[test]
    fn what_is_served_is_described_as_promptflow_describes_it() {
        let recorded: Value = serde_json::from_str(RECORDED).unwrap();
        assert_eq!(swagger(&signature()), recorded);
    }
}
