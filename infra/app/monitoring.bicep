// Logs, metrics and traces: a Log Analytics workspace and the Application Insights component that writes to it.

param workspaceName string
param componentName string
param location string
param tags object

module workspace 'br/public:avm/res/operational-insights/workspace:0.11.1' = {
  name: 'workspace'
  params: {
    name: workspaceName
    location: location
    tags: tags
    dataRetention: 30
  }
}

module component 'br/public:avm/res/insights/component:0.6.0' = {
  name: 'component'
  params: {
    name: componentName
    location: location
    tags: tags
    workspaceResourceId: workspace.outputs.resourceId
    // Telemetry is taken from identities that have the role, not from whoever knows the connection string.
    disableLocalAuth: true
  }
}

output componentName string = component.outputs.name
output connectionString string = component.outputs.connectionString
