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
    // The module's default wants a storage account with a key of one's own for the queries that are saved.
    forceCmkForQuery: false
    enableTelemetry: false
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
    // By the module's default callers' IP addresses would be kept, which nothing here needs.
    disableIpMasking: false
    enableTelemetry: false
  }
}

output componentName string = component.outputs.name
output connectionString string = component.outputs.connectionString
